/* SPDX-License-Identifier: Apache-2.0 */
/* UCX's public interface lists the resources of a context only as text for people:
 *
 *   #      resource 3  :  md 2  dev 3  flags -- sysv/memory
 */
#include "transport/ucxoffers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transport/ucx_state.h"

static bool is_name(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (text[i] <= ' ' || text[i] > '~')
            return false;
    return n > 0 && n < BT_UCX_NAME_BYTES;
}

static void add(bt_ucx_offers *offers, const char *transport, size_t transport_bytes,
                const char *device, size_t device_bytes)
{
    bt_ucx_offer offer = {0};
    memcpy(offer.transport, transport, transport_bytes);
    memcpy(offer.device, device, device_bytes);
    for (uint32_t i = 0; i < offers->n_offers; i++)
        if (memcmp(&offers->offers[i], &offer, sizeof(offer)) == 0)
            return;
    if (offers->n_offers == BT_UCX_OFFERS_MAX)
        offers->is_cut = true;
    else
        offers->offers[offers->n_offers++] = offer;
}

static void parse_line(const char *line, size_t n, bt_ucx_offers *offers)
{
    const char *start = line + n;
    while (start > line && start[-1] == ' ')
        start--;
    const char *end = start;
    while (start > line && start[-1] != ' ')
        start--;
    const char *slash = memchr(start, '/', (size_t)(end - start));
    if (slash == NULL)
        return;
    size_t transport_bytes = (size_t)(slash - start), device_bytes = (size_t)(end - slash - 1);
    if (is_name(start, transport_bytes) && is_name(slash + 1, device_bytes))
        add(offers, start, transport_bytes, slash + 1, device_bytes);
}

void bt_ucx_offers_parse(const char *text, bt_ucx_offers *offers)
{
    static const char word[] = "resource ";
    for (const char *line = text; *line != '\0';) {
        size_t n = strcspn(line, "\n");
        const char *at = memmem(line, n, word, sizeof(word) - 1);
        if (at != NULL)
            parse_line(at, (size_t)(line + n - at), offers);
        line += n + (line[n] == '\n');
    }
}

bool bt_ucx_offers_has(const bt_ucx_offers *offers, const char *transport)
{
    for (uint32_t i = 0; i < offers->n_offers; i++)
        if (strcmp(offers->offers[i].transport, transport) == 0)
            return true;
    return false;
}

static void read_versions(bt_ucx_offers *offers)
{
    unsigned major, minor, release;
    ucp_get_version(&major, &minor, &release);
    offers->runtime_major = major;
    offers->runtime_minor = minor;
    snprintf(offers->runtime_version, sizeof(offers->runtime_version), "%s",
             ucp_get_version_string());
    snprintf(offers->header_version, sizeof(offers->header_version), "%d.%d", UCP_API_MAJOR,
             UCP_API_MINOR);
}

static baton_status read_resources(ucp_context_h context, bt_ucx_offers *offers)
{
    char *text = NULL;
    size_t n_bytes;
    FILE *stream = open_memstream(&text, &n_bytes);
    if (stream == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "ucx: listing transports");
    ucp_context_print_info(context, stream);
    bool is_whole = fclose(stream) == 0;
    if (is_whole)
        bt_ucx_offers_parse(text, offers);
    free(text); /* of open_memstream, so not ours to count */
    return is_whole ? BATON_OK : bt_fail(BATON_ERR_NO_MEMORY, "ucx: listing transports");
}

baton_status bt_ucx_offers_read(bt_ucx_offers *offers)
{
    *offers = (bt_ucx_offers){0};
    read_versions(offers);
    ucp_config_t *config;
    ucs_status_t status = ucp_config_read(NULL, NULL, &config);
    if (status != UCS_OK)
        return bt_fail_ucs(status, "reading the UCX_* environment");
    const ucp_params_t params = {.field_mask = UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_NAME,
                                 .features = UCP_FEATURE_RMA | UCP_FEATURE_AM | UCP_FEATURE_WAKEUP,
                                 .name = "baton-offers"};
    ucp_context_h context;
    status = ucp_init(&params, config, &context);
    ucp_config_release(config);
    if (status != UCS_OK)
        return bt_fail_ucs(status, "opening UCX: no usable device or transport");
    ucp_context_attr_t attr = {.field_mask = UCP_ATTR_FIELD_MEMORY_TYPES};
    if (ucp_context_query(context, &attr) == UCS_OK)
        offers->has_cuda = (attr.memory_types >> UCS_MEMORY_TYPE_CUDA & 1) != 0;
    baton_status result = read_resources(context, offers);
    ucp_cleanup(context);
    return result;
}
