/* SPDX-License-Identifier: Apache-2.0 */
/* Which transports and devices carry an endpoint. Newer versions of UCX answer that in a struct
 * (BT_UCX_HAS_TRANSPORTS, found when configuring), older ones only in text for people:
 *
 *   #                 lane[0]:  1:tcp/lo.0 md[1]  -> md[1]/tcp/sysdev[255] am am_bw#0 wireup
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transport/ucx_state.h"

/* Puts over these write the target's memory from our side, without the target's worker. */
static const char *const mapping_transports[] = {"posix", "sysv",     "xpmem", "cma",
                                                 "knem",  "cuda_ipc", "self",  "gdr_copy"};

static bool is_mapping(const char *transport)
{
    for (size_t i = 0; i < sizeof(mapping_transports) / sizeof(mapping_transports[0]); i++)
        if (strcmp(transport, mapping_transports[i]) == 0)
            return true;
    return false;
}

bool bt_ucx_path_has_queue_pairs(const bt_path *path)
{
    return strstr(path->transport, "rc_") != NULL || strstr(path->transport, "dc_") != NULL;
}

/* Adds the word to the comma separated list in text[BT_PATH_TEXT_BYTES], once, where it fits. */
static void add_word(char *text, const char *word)
{
    size_t used = strlen(text), length = strlen(word);
    for (const char *at = strstr(text, word); at != NULL; at = strstr(at + 1, word))
        if ((at == text || at[-1] == ',') && (at[length] == ',' || at[length] == '\0'))
            return;
    if (used + length + 2 <= BT_PATH_TEXT_BYTES)
        snprintf(text + used, BT_PATH_TEXT_BYTES - used, "%s%s", used != 0 ? "," : "", word);
}

static void add_lane(bt_path *path, const char *transport, const char *device)
{
    add_word(path->transport, transport);
    add_word(path->device, device);
    path->n_rails++;
    if (is_mapping(transport))
        path->puts_are_mapped = true;
}

#ifdef BT_UCX_HAS_TRANSPORTS
enum { LANES_MAX = 32 };

/* All lanes: this UCX does not say which of them puts take. */
void bt_ucx_path(bt_endpoint *base, bt_path *out)
{
    *out = (bt_path){0};
    ucp_transport_entry_t lanes[LANES_MAX];
    ucp_ep_attr_t attr = {
        .field_mask = UCP_EP_ATTR_FIELD_TRANSPORTS,
        .transports = {.entries = lanes, .num_entries = LANES_MAX, .entry_size = sizeof(lanes[0])}};
    if (ucp_ep_query(((ucx_endpoint *)base)->handle, &attr) != UCS_OK)
        return;
    for (unsigned i = 0; i < attr.transports.num_entries; i++)
        add_lane(out, lanes[i].transport_name, lanes[i].device_name);
}
#else
/* Splits "  1:tcp/lo.0 md[1] ..." in place. */
static bool parse_lane(char *text, char **transport_p, char **device_p)
{
    char *transport = strchr(text, ':');
    char *slash = transport != NULL ? strchr(transport, '/') : NULL;
    char *end = slash != NULL ? strchr(slash, ' ') : NULL;
    if (end == NULL)
        return false;
    *slash = *end = '\0';
    char *dot = strrchr(slash + 1, '.'); /* the path index behind the device */
    if (dot != NULL)
        *dot = '\0';
    *transport_p = transport + 1;
    *device_p = slash + 1;
    return true;
}

static void add_lane_of_line(bt_path *path, char *line, const char *use)
{
    char *lane = strstr(line, "lane[");
    char *colon = lane != NULL ? strchr(lane, ':') : NULL;
    char *arrow = lane != NULL ? strstr(lane, "->") : NULL;
    char *transport, *device;
    if (colon == NULL || arrow == NULL || strstr(arrow, use) == NULL)
        return;
    if (parse_lane(colon + 1, &transport, &device))
        add_lane(path, transport, device);
}

static void parse_lanes(const char *text, const char *use, bt_path *path)
{
    for (const char *line = text; *line != '\0';
         line += strcspn(line, "\n"), line += *line == '\n') {
        char copy[512];
        snprintf(copy, sizeof(copy), "%.*s ", (int)strcspn(line, "\n"), line);
        add_lane_of_line(path, copy, use);
    }
}

/* Puts take the lanes for remote memory access; where there is none they are emulated over the one
 * for active messages. */
void bt_ucx_path(bt_endpoint *base, bt_path *out)
{
    *out = (bt_path){0};
    char *text = NULL;
    size_t n_bytes;
    FILE *stream = open_memstream(&text, &n_bytes);
    if (stream == NULL)
        return;
    ucp_ep_print_info(((ucx_endpoint *)base)->handle, stream);
    if (fclose(stream) == 0) {
        parse_lanes(text, " rma", out);
        if (out->n_rails == 0)
            parse_lanes(text, " am ", out);
    }
    free(text); /* of open_memstream, so not ours to count */
}
#endif
