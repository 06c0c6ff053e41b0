/* SPDX-License-Identifier: Apache-2.0 */
/* Prompts are worded as in lm-evaluation-harness v0.4.9.2, lm_eval/tasks/<name>: its doc_to_text, doc_to_choice and
 * doc_to_target, with one space (its target_delimiter) in front of every choice. docs/tasks.md shows them. */
#include "eval/task_formats.h"

#include "eval/python_text.h"
#include "model/json_read.h"

#include <stdlib.h>
#include <string.h>

/* ---- questions with choices of their own ------------------------------------------------------------------------- */

/* " " and each text of a list, whose entries are texts or objects with one. */
static json_t *read_choices(struct atom_task_record *in, const char *list, const char *member, int n)
{
    json_t *choices = json_array();
    for (int i = 0; i < n; i++) {
        char path[64];
        snprintf(path, sizeof path, "%s.%d%s", list, i, member);
        json_array_append_new(choices, json_pack("s+", " ", atom_record_choice(in, path)));
    }
    return choices;
}

/* The choice whose label is the answer. */
static int read_key(struct atom_task_record *in, const char *list, const char *member, int n)
{
    const char *key = atom_record_text(in, "answerKey");
    key += strspn(key, " \t\n\r");
    for (int i = 0; i < n; i++) {
        char path[64];
        snprintf(path, sizeof path, "%s.%d%s", list, i, member);
        if (strcmp(atom_record_text(in, path), key) == 0)
            return i;
    }
    atom_record_refuse(in, "'answerKey' is \"%.20s\", which labels no choice", key);
    return 0;
}

/* The authors' {"question": {"stem", "choices": [{"text", "label"}]}}, or the hub's {name, "choices": {"text": [],
 * "label": []}}. */
static json_t *read_question(struct atom_task_record *in, const char *name, const char *before, const char *after)
{
    const bool theirs = json_is_object(atom_record_find(in, "question"));
    const char *list = theirs ? "question.choices" : "choices.text";
    const char *question = atom_record_text(in, theirs ? "question.stem" : name);
    int n = atom_record_entries(in, list);
    json_t *choices = read_choices(in, list, theirs ? ".text" : "", n);
    int gold = theirs ? read_key(in, list, ".label", n) : read_key(in, "choices.label", "", n);
    if (in->status) {
        json_decref(choices);
        return NULL;
    }
    return json_pack("{s:s++, s:o, s:i}", "context", before, question, after, "choices", choices, "gold", gold);
}

static json_t *read_arc(struct atom_task_record *in)
{
    return read_question(in, "question", "Question: ", "\nAnswer:");
}

static json_t *read_openbookqa(struct atom_task_record *in) { return read_question(in, "question_stem", "", ""); }

static json_t *read_piqa(struct atom_task_record *in)
{
    const char *goal = atom_record_text(in, "goal");
    const char *one = atom_record_choice(in, "sol1"), *two = atom_record_choice(in, "sol2");
    int gold = atom_record_index(in, "label", 0, 2);
    return in->status ? NULL
                      : json_pack("{s:s++, s:[s+, s+], s:i}", "context", "Question: ", goal, "\nAnswer:", "choices",
                                  " ", one, " ", two, "gold", gold);
}

/* ---- questions that all have the same choices -------------------------------------------------------------------- */

/* SuperGLUE's label (0, 1 or false, true), or the authors' answer. */
static json_t *read_boolq(struct atom_task_record *in)
{
    const char *passage = atom_record_text(in, "passage"), *question = atom_record_text(in, "question");
    const char *name = atom_record_find(in, "label") || !atom_record_find(in, "answer") ? "label" : "answer";
    const json_t *label = atom_record_find(in, name);
    int gold = json_is_boolean(label) ? json_is_true(label) : atom_record_index(in, name, 0, 2);
    return in->status ? NULL
                      : json_pack("{s:s+++, s:[s, s], s:i}", "context", passage, "\nQuestion: ", question,
                                  "?\nAnswer:", "choices", " no", " yes", "gold", gold);
}

/* Its subject with spaces. */
static const char *spell_subject(struct atom_task_record *in, const char *subject)
{
    char *text = strdup(subject);
    for (char *c = text; c && *c; c++)
        *c = *c == '_' ? ' ' : *c;
    return atom_record_keep(in, text);
}

/* An index, or a letter. */
static int read_letter(struct atom_task_record *in)
{
    const char *letter = json_string_value(atom_record_find(in, "answer"));
    if (letter && *letter >= 'A' && *letter <= 'D' && !letter[1])
        return *letter - 'A';
    return atom_record_index(in, "answer", 0, 4);
}

static json_t *read_mmlu(struct atom_task_record *in)
{
    const char *subject = atom_record_find(in, "subject") ? atom_record_text(in, "subject") : in->subject;
    const char *question = atom_record_keep(in, atom_python_strip(atom_record_text(in, "question")));
    const char *a = atom_record_text(in, "choices.0"), *b = atom_record_text(in, "choices.1");
    const char *c = atom_record_text(in, "choices.2"), *d = atom_record_text(in, "choices.3");
    int gold = read_letter(in);
    if (!subject)
        atom_record_refuse(in, "no 'subject', and the file is not called SUBJECT_test, SUBJECT_val or SUBJECT_dev");
    const char *spelt = spell_subject(in, subject ? subject : "");
    json_t *context = json_sprintf("%s\nA. %s\nB. %s\nC. %s\nD. %s\nAnswer:", question, a, b, c, d);
    if (in->status) {
        json_decref(context);
        return NULL;
    }
    return json_pack("{s:s, s:s++, s:o, s:[s, s, s, s], s:i}", "task", subject, "description",
                     "The following are multiple choice questions (with answers) about ", spelt, ".\n\n", "context",
                     context, "choices", " A", " B", " C", " D", "gold", gold);
}

/* ---- sentences --------------------------------------------------------------------------------------------------- */

/* A space from the harness and one from the choices it makes: there are two. */
static json_t *read_copa(struct atom_task_record *in)
{
    const char *premise = atom_record_keep(in, atom_python_strip(atom_record_choice(in, "premise")));
    const char *asks = atom_record_text(in, "question");
    const char *one = atom_record_keep(in, atom_python_lower_first(atom_record_choice(in, "choice1")));
    const char *two = atom_record_keep(in, atom_python_lower_first(atom_record_choice(in, "choice2")));
    const bool cause = strcmp(asks, "cause") == 0;
    int gold = atom_record_index(in, "label", 0, 2);
    size_t n = strlen(premise);
    if (!cause && strcmp(asks, "effect") != 0)
        atom_record_refuse(in, "'question' is \"%.40s\"; expected \"cause\" or \"effect\"", asks);
    while (n > 0 && (premise[--n] & 0xC0) == 0x80)
        ; /* its last character, the period, goes */
    return in->status ? NULL
                      : json_pack("{s:s%+, s:[s+, s+], s:i}", "context", premise, n, cause ? " because" : " therefore",
                                  "choices", "  ", one, "  ", two, "gold", gold);
}

static json_t *read_blimp(struct atom_task_record *in)
{
    const char *good = atom_record_choice(in, "sentence_good"), *bad = atom_record_choice(in, "sentence_bad");
    const char *of = atom_record_find(in, "UID") ? atom_record_text(in, "UID") : NULL;
    return in->status ? NULL
                      : json_pack("{s:s, s:[s+, s+], s:i, s:s*}", "context", "", "choices", " ", good, " ", bad, "gold",
                                  0, "task", of);
}

/* Partial evaluation: the sentence goes on the same after either option. */
static json_t *read_winogrande(struct atom_task_record *in)
{
    const char *sentence = atom_record_text(in, "sentence"), *gap = strchr(sentence, '_');
    const char *one = atom_record_text(in, "option1"), *two = atom_record_text(in, "option2");
    int gold = atom_record_index(in, "answer", 1, 2);
    if (!gap)
        atom_record_refuse(in, "'sentence' has no '_' for its options");
    size_t n = gap ? (size_t)(gap - sentence) : 0;
    const char *rest = atom_record_keep(in, atom_python_strip(gap ? gap + 1 : ""));
    if (!*rest)
        atom_record_refuse(in, "'sentence' ends with its '_'");
    return in->status ? NULL
                      : json_pack("{s:[s%+, s%+], s:s+, s:i}", "contexts", sentence, n, one, sentence, n, two,
                                  "continuation", " ", rest, "gold", gold);
}

/* The last word, as a space cuts it off. */
static json_t *read_lambada(struct atom_task_record *in)
{
    const char *text = atom_record_choice(in, "text"), *space = strrchr(text, ' ');
    if (space && !space[1])
        atom_record_refuse(in, "'text' ends with a space instead of a word");
    return in->status ? NULL
                      : json_pack("{s:s%, s:s+}", "context", text, space ? (size_t)(space - text) : 0, "continuation",
                                  " ", space ? space + 1 : text);
}

/* ---- table ------------------------------------------------------------------------------------------------------- */

/* Without a test split, the harness takes the examples' split for the one it scores, and draws one more. LAMBADA's
 * answers have their space, and its examples get another. */
static const struct atom_task_format formats[] = {
    {.name = "items"},
    {"arc", read_arc, NULL, false, ATOM_DRAW_RANDOM, 0, NULL},
    {"blimp", read_blimp, NULL, false, ATOM_DRAW_NONE, 0, NULL},
    {"boolq", read_boolq, NULL, false, ATOM_DRAW_RANDOM, 1, NULL},
    {"copa", read_copa, NULL, false, ATOM_DRAW_RANDOM, 1, NULL},
    {"hellaswag", atom_hellaswag_read, NULL, false, ATOM_DRAW_RANDOM, 1, NULL},
    {"lambada", read_lambada, NULL, false, ATOM_DRAW_RANDOM, 0, " "},
    {"mmlu", read_mmlu, NULL, true, ATOM_DRAW_FIRST, 0, NULL},
    {"openbookqa", read_openbookqa, NULL, false, ATOM_DRAW_RANDOM, 0, NULL},
    {"piqa", read_piqa, "label", false, ATOM_DRAW_RANDOM, 1, NULL},
    {"winogrande", read_winogrande, "answer", false, ATOM_DRAW_RANDOM, 1, NULL},
};

const struct atom_task_format *atom_task_format(int i)
{
    return i >= 0 && i < (int)(sizeof formats / sizeof *formats) ? &formats[i] : NULL;
}
