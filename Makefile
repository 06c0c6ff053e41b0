# Atom. `make` builds build/atom; `make help` lists the rest.
MODE  ?= release
SAN   ?=
BUILD ?= build
CC    ?= gcc
ifeq ($(origin CC),default)
CC := gcc
endif

PKGS     := jansson libpcre2-8 libutf8proc
WARN     := -Wall -Wextra -Werror -Wconversion -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
            -Wno-sign-conversion
CPPFLAGS += -Iinclude -Isrc -D_GNU_SOURCE
CFLAGS_release := -O3 -g
CFLAGS_debug   := -O0 -g
CFLAGS   += -std=c11 -fPIC -fvisibility=hidden -ffp-contract=off -fno-math-errno -pthread $(WARN) $(CFLAGS_$(MODE)) \
            $(shell pkg-config --cflags $(PKGS))
LDLIBS   := $(shell pkg-config --libs $(PKGS)) -llapacke -lopenblas -lm -pthread
ifneq ($(SAN),)
CFLAGS   += -fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all
LDFLAGS  += -fsanitize=$(SAN)
endif

LIB_SRC  := $(wildcard src/*/*.c src/kernels/*/*.c)
CLI_SRC  := $(wildcard cli/*.c)
LIB_OBJ  := $(LIB_SRC:%.c=$(BUILD)/obj/%.o)
CLI_OBJ  := $(CLI_SRC:%.c=$(BUILD)/obj/%.o)
TEST_SRC := $(wildcard tests/test_*.c)
TEST_BIN := $(TEST_SRC:tests/%.c=$(BUILD)/tests/%)

all: $(BUILD)/atom

$(BUILD)/atom: $(CLI_OBJ) $(BUILD)/libatom.a
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/libatom.a: $(LIB_OBJ)
	rm -f $@ && ar rcs $@ $^

$(BUILD)/obj/src/kernels/avx2/%.o: CFLAGS += -mavx2 -mfma -mf16c
$(BUILD)/obj/src/kernels/avx512/%.o: CFLAGS += -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mfma -mf16c

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

# Each tests/test_NAME.c is a cmocka program of its own, linked with the static library.
$(BUILD)/tests/%: tests/%.c $(BUILD)/libatom.a
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) -Itests $(CFLAGS) -MMD -MP $(LDFLAGS) -o $@ $(filter %.c %.a,$^) -lcmocka $(LDLIBS)

tests: $(TEST_BIN)

# tests/fuzz_NAME.c with a main of its own: build/fuzz/fuzz_NAME N [SEED_FILE].
FUZZ_BIN := $(patsubst tests/%.c,$(BUILD)/fuzz/%,$(wildcard tests/fuzz_*.c))
$(BUILD)/fuzz/%: tests/%.c tests/fuzz.h $(BUILD)/libatom.a
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) -Itests -DFUZZ_MAIN $(CFLAGS) $(LDFLAGS) -o $@ $(filter %.c %.a,$^) $(LDLIBS)

fuzz: $(FUZZ_BIN)

clean:
	rm -rf $(BUILD)

.PHONY: all tests fuzz clean
-include $(LIB_OBJ:.o=.d) $(CLI_OBJ:.o=.d) $(TEST_BIN:=.d)
