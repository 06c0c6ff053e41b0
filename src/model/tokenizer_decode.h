/* SPDX-License-Identifier: Apache-2.0 */
/* Decoders: from the spellings of tokens to text, as a chain of stages that tokens are pushed through one by one. */
#ifndef ATOM_MODEL_TOKENIZER_DECODE_H
#define ATOM_MODEL_TOKENIZER_DECODE_H

#include "model/tokenizer_json.h"
#include "model/tokenizer_text.h"

enum atom_stage_kind {
    ATOM_STAGE_REPLACE,
    ATOM_STAGE_BYTES, /* <0x41> is a byte; a run of them that is no UTF-8 becomes one U+FFFD each */
    ATOM_STAGE_FUSE,  /* all tokens are one from here on */
    ATOM_STAGE_STRIP,
    ATOM_STAGE_METASPACE,
    ATOM_STAGE_BYTE_LEVEL,
    ATOM_STAGE_JOIN /* a space between tokens: what having no decoder means */
};

struct atom_stage {
    enum atom_stage_kind kind;
    bool fused;      /* what arrives are parts of one token */
    bool drop_first; /* METASPACE: the first token loses its marks */
    int start, stop; /* STRIP: at most so many characters at either end */
    struct atom_text pattern, content;
};

struct atom_decoder_chain {
    struct atom_stage *stages;
    size_t n;
};

/* `node` is the "decoder" field. */
enum atom_status atom_decoder_chain_load(struct atom_decoder_chain *chain, const struct atom_node *node,
                                         struct atom_error *err);
void atom_decoder_chain_fini(struct atom_decoder_chain *chain);

/* What a stage remembers between tokens. */
struct atom_stage_state {
    struct atom_text held;   /* bytes of an unfinished run or character, or an end that may yet be stripped */
    struct atom_text output; /* scratch: the token as it leaves */
    size_t count;            /* tokens seen; STRIP when fused: characters stripped */
    bool broken;             /* BYTES: the run is no UTF-8. STRIP when fused: its start has passed */
};

struct atom_chain_run {
    const struct atom_decoder_chain *chain;
    struct atom_stage_state *states; /* [chain->n] */
    struct atom_text out;            /* what has come out and the caller has not taken */
};

bool atom_chain_start(struct atom_chain_run *run, const struct atom_decoder_chain *chain);
/* False when out of memory. */
bool atom_chain_push(struct atom_chain_run *run, const char *token, size_t n);
/* Lets out what is held back; the run then stands at its start again. */
bool atom_chain_finish(struct atom_chain_run *run);
void atom_chain_stop(struct atom_chain_run *run);

#endif
