/* SPDX-License-Identifier: Apache-2.0 */
#include "core/textcopy.h"

#include "core/alloc.h"
#include "core/fail.h"

baton_status bt_text_copy(const char *text, const char **copy_p)
{
    *copy_p = text != NULL ? bt_strdup(text) : NULL;
    if (text != NULL && *copy_p == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "options: copy of a text");
    return BATON_OK;
}

void bt_text_free(const char *copy)
{
    bt_free((void *)(uintptr_t)copy);
}

baton_status bt_texts_copy(const char *const *list, uint32_t n, const char *const **copy_p)
{
    *copy_p = NULL;
    if (n == 0)
        return BATON_OK;
    const char **copy = bt_calloc(n, sizeof(*copy));
    *copy_p = copy;
    if (copy == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "options: copy of %u texts", n);
    for (uint32_t i = 0; i < n; i++)
        BATON_TRY(bt_text_copy(list[i], &copy[i]));
    return BATON_OK;
}

void bt_texts_free(const char *const *copy, uint32_t n)
{
    for (uint32_t i = 0; copy != NULL && i < n; i++)
        bt_text_free(copy[i]);
    bt_free((void *)(uintptr_t)copy);
}
