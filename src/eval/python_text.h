/* SPDX-License-Identifier: Apache-2.0 */
/* Strings as Python's methods of the same names leave them: the harness's prompts are made with those. */
#ifndef ATOM_EVAL_PYTHON_TEXT_H
#define ATOM_EVAL_PYTHON_TEXT_H

#include <stddef.h>

/* Bytes of a text up to the white space that ends it (str.rstrip). */
size_t atom_python_rstrip(const char *text, size_t n_bytes);

/* malloc'd, NULL when memory is out. Letters become one letter each: where Python writes two for one, this does not. */
char *atom_python_strip(const char *text);
char *atom_python_capitalize(const char *text);  /* the first letter large, all others small */
char *atom_python_lower_first(const char *text); /* text[0].lower() + text[1:] */

#endif
