/* SPDX-License-Identifier: Apache-2.0 */
/* Copies of a caller's texts, for options that must outlive the call that brought them.
 * Thread rule: any thread. */
#ifndef BT_CORE_TEXTCOPY_H
#define BT_CORE_TEXTCOPY_H
#include <baton/status.h>

/* NULL copies to NULL. *copy_p is set in any case, and freed with bt_text_free. Errors: NO_MEMORY.
 */
baton_status bt_text_copy(const char *text, const char **copy_p);
void bt_text_free(const char *copy); /* NULL is allowed. */
/* list[n]; n 0 copies to NULL. *copy_p is set in any case, and freed with bt_texts_free. Errors:
 * NO_MEMORY. */
baton_status bt_texts_copy(const char *const *list, uint32_t n, const char *const **copy_p);
void bt_texts_free(const char *const *copy, uint32_t n); /* NULL is allowed. */

#endif
