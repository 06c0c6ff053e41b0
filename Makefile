# SPDX-License-Identifier: Apache-2.0
# Atom. `make` builds the program and the library; `make help` lists the rest.

MODE   ?= release
SAN    ?=
BUILD  ?= build
WERROR ?= 1
PREFIX ?= /usr/local
DESTDIR ?=
FUZZ_SECONDS ?= 60
V      ?= 0
CC     ?= gcc
ifeq ($(origin CC),default)
CC := gcc
endif
PKG_CONFIG ?= pkg-config

VERSION := $(shell sed -n 's/^\#define ATOM_VERSION "\(.*\)"/\1/p' include/atom/atom.h)
COMMIT   = $(shell GIT_OPTIONAL_LOCKS=0 git describe --always --dirty 2>/dev/null)
SONAME  := libatom.so.0
SOFILE  := libatom.so.$(VERSION)

# ---- flags: what follows is ours; CPPFLAGS, CFLAGS, LDFLAGS and LDLIBS from outside come after it ----

PKGS := jansson libpcre2-8 libutf8proc openblas
# liblapacke.so asks for the reference BLAS and LAPACK, which Debian's alternatives choose; the archive takes both from
# OpenBLAS instead, so that one BLAS is in the process (docs/building.md).
LAPACKE := $(if $(filter /%,$(shell $(CC) -print-file-name=liblapacke.a)),-l:liblapacke.a,-llapacke)

# Sanitizers make GCC warn of code they wrote themselves: there, warnings are no errors.
WARN := -Wall -Wextra -Wconversion -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
        -Wno-sign-conversion $(if $(SAN),,$(if $(filter 1,$(WERROR)),-Werror))
OPT_release   := -O3 -g
OPT_debug     := -O0 -g
# -g1 has the lines that reports name; GCC takes minutes over where variables are in sanitized, unrolled kernels.
OPT_sanitized := -O1 -g1 -fno-omit-frame-pointer -fno-sanitize-recover=all -fsanitize=$(SAN)
OPT := $(if $(SAN),$(OPT_sanitized),$(OPT_$(MODE)))
ifeq ($(strip $(OPT)),)
$(error MODE is '$(MODE)': it must be release or debug)
endif

# CUDA is there when nvcc is; CUDA=0 leaves it out, and so do sanitizers, which nvcc does not speak of.
NVCC ?= $(firstword $(shell command -v nvcc 2>/dev/null) $(wildcard /usr/local/cuda/bin/nvcc))
WITH_CUDA := $(if $(SAN),,$(if $(filter 0,$(CUDA)),,$(if $(strip $(NVCC)),1)))
CUDA_HOME  = $(patsubst %/bin/,%,$(dir $(realpath $(NVCC))))
# Machine code for each generation with kernels of its own, and PTX for those to come.
CUDA_ARCHS ?= 80 86 89 90a
CUDA_GEN    = $(foreach a,$(CUDA_ARCHS),-gencode arch=compute_$(a),code=sm_$(a)) \
              -gencode arch=compute_89,code=compute_89
NVCCFLAGS ?=
CUDA_FLAGS  = -O3 -std=c++17 -lineinfo $(CUDA_GEN) -Iinclude -Isrc -D_GNU_SOURCE -Werror all-warnings \
              -Xcompiler -fPIC,-fvisibility=hidden,-fno-exceptions,-fno-rtti,-fno-threadsafe-statics,-Wall,-Wextra $(NVCCFLAGS)
# The runtime is linked in: the program starts where no CUDA is.
CUDA_LIBS   = $(if $(WITH_CUDA),-L$(CUDA_HOME)/lib64 -L$(CUDA_HOME)/targets/x86_64-linux/lib -l:libcudart_static.a -ldl -lrt)

# -fno-math-errno, but nothing that reorders sums: every tier must give the same bits.
ATOM_CPPFLAGS := -Iinclude -Isrc -D_GNU_SOURCE $(CPPFLAGS)
ATOM_CFLAGS   := -std=c11 -fPIC -fvisibility=hidden -ffp-contract=off -fno-math-errno -pthread $(WARN) $(OPT) \
                 $(shell $(PKG_CONFIG) --cflags $(PKGS) 2>/dev/null) $(CFLAGS)
comma := ,
ATOM_LDFLAGS  := $(if $(SAN),-fsanitize=$(SAN:fuzzer-no-link$(comma)%=%)) $(LDFLAGS)
ATOM_LDLIBS   := $(LAPACKE) $(shell $(PKG_CONFIG) --libs $(PKGS) 2>/dev/null) -lm -pthread $(CUDA_LIBS) $(LDLIBS)
ISA_avx2   := -mavx2 -mfma -mf16c
ISA_avxvnni := $(ISA_avx2) -mavxvnni
ISA_avx512 := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mfma -mf16c
ISA_avx512bf16 := $(ISA_avx512) -mavx512bf16

# A short line for each command; V=1 shows the commands.
Q   := $(if $(filter 0,$(V)),@)
say  = $(if $(filter 0,$(V)),@printf '  %-4s %s\n' $1 $@)

# ---- files ----

LIB_SRC  := $(sort $(wildcard src/*/*.c src/kernels/*/*.c src/bench/*/*.c))
CUDA_SRC := $(sort $(wildcard src/cuda/*.cu src/bench/gpu/*.cu))
ABSENT   := $(wildcard src/cuda/absent.c src/bench/gpu/gpu_absent.c)
ifeq ($(WITH_CUDA),1)
LIB_SRC  := $(filter-out $(ABSENT),$(LIB_SRC))
else
LIB_SRC  := $(filter-out src/cuda/%.c src/bench/gpu/%.c,$(LIB_SRC)) $(ABSENT)
CUDA_SRC :=
endif
CLI_SRC  := $(sort $(wildcard cli/*.c server/*.c))
TEST_SRC := $(filter-out $(if $(WITH_CUDA),,tests/test_cuda_%),$(sort $(wildcard tests/test_*.c)))
FUZZ_SRC := $(sort $(wildcard tests/fuzz_*.c))
LIB_OBJ  := $(LIB_SRC:%.c=$(BUILD)/obj/%.o) $(CUDA_SRC:%.cu=$(BUILD)/obj/%.cu.o)
CLI_OBJ  := $(CLI_SRC:%.c=$(BUILD)/obj/%.o)
TEST_BIN := $(TEST_SRC:tests/%.c=$(BUILD)/tests/%)
FUZZ_BIN := $(FUZZ_SRC:tests/%.c=$(BUILD)/fuzz/%)
PROGRAM  := $(if $(CLI_SRC),$(BUILD)/atom)
SHARED_LIB := $(if $(SAN),,$(BUILD)/libatom.so)
BUNDLE   := $(BUILD)/atom-$(VERSION)-linux-$(shell uname -m).tar.gz

.DEFAULT_GOAL := all
all: $(PROGRAM) $(BUILD)/libatom.a $(SHARED_LIB)

# A stamp changes only when its text does; whatever depends on it is then made again.
quote = '$(subst ','\'',$(strip $1))'
stamp = @mkdir -p $(@D) && printf '%s\n' $(call quote,$1) | cmp -s - $@ || printf '%s\n' $(call quote,$1) >$@

$(BUILD)/.flags: FORCE | deps-told
	$(call stamp,$(shell $(CC) --version 2>&1 | head -n 1) $(CC) $(ATOM_CPPFLAGS) $(ATOM_CFLAGS) $(ATOM_LDFLAGS) $(ATOM_LDLIBS) $(ISA_avxvnni) $(ISA_avx512bf16) $(if $(WITH_CUDA),$(NVCC) $(CUDA_FLAGS)))
$(BUILD)/.sources: FORCE
	$(call stamp,$(LIB_SRC) $(CUDA_SRC) $(CLI_SRC))

$(BUILD)/obj/src/kernels/avx2/%.o $(BUILD)/obj/src/bench/avx2/%.o:     ISA := $(ISA_avx2)
$(BUILD)/obj/src/kernels/avxvnni/%.o: ISA := $(ISA_avxvnni)
$(BUILD)/obj/src/kernels/avx512/%.o $(BUILD)/obj/src/bench/avx512/%.o: ISA := $(ISA_avx512)
$(BUILD)/obj/src/kernels/avx512bf16/%.o: ISA := $(ISA_avx512bf16)
# One object alone knows the commit, so that a new one makes little anew.
$(BUILD)/.commit: FORCE
	$(call stamp,$(COMMIT))
$(BUILD)/obj/src/bench/machine.o: $(BUILD)/.commit
$(BUILD)/obj/src/bench/machine.o: DEFINES = -DATOM_COMMIT='"$(COMMIT)"'
$(BUILD)/obj/%.o: %.c $(BUILD)/.flags
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(ATOM_CPPFLAGS) $(DEFINES) $(ATOM_CFLAGS) $(ISA) -MMD -MP -c -o $@ $<

# What is written for Hopper alone is compiled for it alone.
$(BUILD)/obj/%_sm90.cu.o: CUDA_GEN = -gencode arch=compute_90a,code=sm_90a
$(BUILD)/obj/%.cu.o: %.cu $(BUILD)/.flags
	@mkdir -p $(@D)
	$(call say,NVCC)
	$(Q)$(NVCC) -ccbin gcc $(CUDA_FLAGS) -MMD -MP -MF $(@:.o=.d) -c -o $@ $<

$(BUILD)/libatom.a: $(LIB_OBJ) $(BUILD)/.sources
	$(call say,AR)
	$(Q)rm -f $@ && ar rcs $@ $(LIB_OBJ)

$(BUILD)/$(SOFILE): $(LIB_OBJ) $(BUILD)/.sources
	$(call say,LD)
	$(Q)$(CC) -shared -Wl,-soname,$(SONAME) -Wl,--exclude-libs,ALL -Wl,-z,defs $(ATOM_LDFLAGS) -o $@ $(LIB_OBJ) $(ATOM_LDLIBS)
$(BUILD)/libatom.so: $(BUILD)/$(SOFILE)
	$(Q)ln -sf $(SOFILE) $(BUILD)/$(SONAME)
	$(Q)ln -sf $(SONAME) $@

$(BUILD)/atom: $(CLI_OBJ) $(BUILD)/libatom.a
	$(call say,LD)
	$(Q)$(CC) $(ATOM_LDFLAGS) -o $@ $(CLI_OBJ) $(BUILD)/libatom.a $(ATOM_LDLIBS)

# Each tests/test_NAME.c is a cmocka program of its own, linked with the static library.
$(BUILD)/tests/%: tests/%.c $(BUILD)/libatom.a $(BUILD)/.flags
	@mkdir -p $(@D)
	$(call say,LD)
	$(Q)$(CC) $(ATOM_CPPFLAGS) -Itests $(ATOM_CFLAGS) -MMD -MP $(ATOM_LDFLAGS) -o $@ $< $(BUILD)/libatom.a -lcmocka $(ATOM_LDLIBS)

$(BUILD)/fuzz/%: tests/%.c $(BUILD)/libatom.a $(BUILD)/.flags
	@mkdir -p $(@D)
	$(call say,LD)
	$(Q)$(CC) $(ATOM_CPPFLAGS) $(ATOM_CFLAGS) -MMD -MP -fsanitize=fuzzer $(ATOM_LDFLAGS) -o $@ $< $(BUILD)/libatom.a $(ATOM_LDLIBS)

-include $(LIB_OBJ:.o=.d) $(CLI_OBJ:.o=.d) $(TEST_BIN:=.d) $(FUZZ_BIN:=.d)

# ---- what people type ----

tests: $(TEST_BIN)

# The unit and command line tests of this build alone.
test: all tests
	tools/run-tests.sh -b $(BUILD) $(TEST_BIN) $(sort $(wildcard tests/cli_*))

check: deps
	@tools/check.sh

# Models do not run on a GPU yet: what nvcc takes minutes over is left out.
demo: deps
	@$(MAKE) --no-print-directory $(if $(findstring -j,$(MAKEFLAGS)),,-j$(shell nproc)) $(BUILD)/cpu/atom BUILD=$(BUILD)/cpu CUDA=0
	@ATOM=$(BUILD)/cpu/atom tools/demo.sh $(BUILD)/demo

deps:
	@tools/install-deps.sh
deps-told:
	@tools/install-deps.sh --check build

$(BUILD)/bundle/atom: $(CLI_OBJ) $(BUILD)/libatom.a
	@mkdir -p $(@D)
	$(call say,LD)
	$(Q)$(CC) $(ATOM_LDFLAGS) -Wl,--disable-new-dtags,-rpath,'$$ORIGIN/../lib' -o $@ $(CLI_OBJ) $(BUILD)/libatom.a $(ATOM_LDLIBS)
bundle: $(BUNDLE)
$(BUNDLE): $(BUILD)/bundle/atom tools/bundle.sh README.md LICENSE NOTICE $(wildcard docs/*.md models/tiny/*)
	tools/bundle.sh $(BUILD)/bundle/atom $@

define PC
prefix=$(PREFIX)
libdir=$${prefix}/lib
includedir=$${prefix}/include

Name: atom
Description: Llama-family language models at 4 bits
Version: $(VERSION)
Libs: -L$${libdir} -latom
Libs.private: $(ATOM_LDLIBS)
Cflags: -I$${includedir}
endef
export PC

ROOT := $(DESTDIR)$(PREFIX)
install: all
	install -d $(ROOT)/bin $(ROOT)/lib/pkgconfig $(ROOT)/include/atom $(ROOT)/share/doc/atom
	install -m 755 $(BUILD)/atom $(ROOT)/bin/atom
	install -m 644 $(BUILD)/libatom.a $(ROOT)/lib/libatom.a
	install -m 755 $(BUILD)/$(SOFILE) $(ROOT)/lib/$(SOFILE)
	ln -sf $(SOFILE) $(ROOT)/lib/$(SONAME)
	ln -sf $(SONAME) $(ROOT)/lib/libatom.so
	install -m 644 include/atom/*.h $(ROOT)/include/atom
	printf '%s\n' "$$PC" >$(ROOT)/lib/pkgconfig/atom.pc
	install -m 644 README.md LICENSE NOTICE $(filter-out docs/README.md,$(wildcard docs/*.md)) $(ROOT)/share/doc/atom

uninstall:
	rm -f $(ROOT)/bin/atom $(ROOT)/lib/libatom.a $(ROOT)/lib/libatom.so $(ROOT)/lib/$(SONAME) $(ROOT)/lib/$(SOFILE) \
	      $(ROOT)/lib/pkgconfig/atom.pc
	rm -rf $(ROOT)/include/atom $(ROOT)/share/doc/atom

format-check:
	clang-format --dry-run --Werror $$(git ls-files '*.c' '*.h')

fuzz:
	@$(MAKE) --no-print-directory fuzz-run BUILD=build-fuzz CC=clang SAN=fuzzer-no-link,address,undefined
fuzz-run: $(FUZZ_BIN)
	tools/fuzz.sh $(FUZZ_SECONDS) $(FUZZ_BIN)

clean:
	rm -rf $(BUILD) build-asan build-clang build-tsan build-fuzz

help:
	@echo 'make             $(BUILD)/atom, libatom.a, libatom.so'
	@echo 'make demo        build, then quantize, evaluate and run models/tiny: under three minutes'
	@echo 'make check       everything that must pass: tests, sanitizers, clang; ends in one line of counts'
	@echo 'make test        the tests of this build alone'
	@echo 'make deps        install the Debian packages that are missing (root or sudo), or say which'
	@echo 'make bundle      $(BUNDLE): runs on any glibc system as new as this one'
	@echo 'make install     PREFIX=$(PREFIX), DESTDIR= for packagers; make uninstall undoes it'
	@echo 'make fuzz        FUZZ_SECONDS=$(FUZZ_SECONDS) for each fuzzer (clang)'
	@echo 'make format-check, make tests (build only), make clean'
	@echo
	@echo 'MODE=release|debug  SAN=address,undefined|thread  CC=gcc|clang  WERROR=1|0  BUILD=folder  V=1 (commands)'
	@echo 'NVCC=nvcc, CUDA=0 (without), CUDA_ARCHS="$(CUDA_ARCHS)": $(if $(WITH_CUDA),CUDA code is built with $(NVCC),no nvcc or CUDA=0: no CUDA code is built)'
	@echo 'CFLAGS, CPPFLAGS, LDFLAGS and LDLIBS are added to what the project needs.'

FORCE:
.PHONY: all tests test check demo deps deps-told bundle install uninstall format-check fuzz fuzz-run clean help FORCE
