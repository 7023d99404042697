/* SPDX-License-Identifier: Apache-2.0 */
#include "kv_case.h"

#include "core/alloc.h"

static bool has_one_plane(const kv_case *c)
{
    return c->layout == LAYOUT_MLA;
}

static uint64_t block_bytes(const kv_case *c)
{
    uint64_t bytes = c->shape.block_tokens * c->shape.n_kv_heads * c->shape.head_bytes;
    return c->layout == LAYOUT_SPLIT_PADDED ? bytes + PADDING_BYTES : bytes;
}

/* Index of a block of one layer and plane among all such blocks of the arena. */
static uint64_t block_index(const kv_case *c, uint64_t layer, uint64_t plane, uint64_t block)
{
    uint64_t n_layers = c->shape.n_layers;
    uint64_t n_blocks = c->shape.n_blocks;
    switch (c->layout) {
    case LAYOUT_FLASH:
    case LAYOUT_HND_FUSED:
        return (layer * 2 + plane) * n_blocks + block;
    case LAYOUT_FLASHINFER:
    case LAYOUT_FLASHINFER_HND:
        return (layer * n_blocks + block) * 2 + plane;
    case LAYOUT_CROSS_LAYER:
        return (block * n_layers + layer) * 2 + plane;
    case LAYOUT_MLA:
        return layer * n_blocks + block;
    default:
        return (plane * n_layers + layer) * n_blocks + block;
    }
}

uint64_t kv_case_offset(const kv_case *c, uint32_t layer, uint32_t plane, uint64_t slot,
                        uint32_t head)
{
    uint64_t tokens = c->shape.block_tokens;
    uint64_t heads = c->shape.n_kv_heads;
    uint64_t inside = slot % tokens * heads + head;
    if (c->layout == LAYOUT_HND || c->layout == LAYOUT_HND_FUSED ||
        c->layout == LAYOUT_FLASHINFER_HND)
        inside = head * tokens + slot % tokens;
    return block_index(c, layer, plane, slot / tokens) * block_bytes(c) +
           inside * c->shape.head_bytes;
}

static void make_view(kv_case *c)
{
    void *k[MAX_LAYERS];
    void *v[MAX_LAYERS];
    for (uint32_t layer = 0; layer < c->shape.n_layers; layer++) {
        k[layer] = c->arena + kv_case_offset(c, layer, 0, 0, 0);
        v[layer] = has_one_plane(c) ? NULL : c->arena + kv_case_offset(c, layer, 1, 0, 0);
    }
    switch (c->layout) {
    case LAYOUT_FLASH:
        assert_ok(baton_kv_view_flash(&c->shape, k, c->planes, &c->view));
        break;
    case LAYOUT_HND:
        assert_ok(baton_kv_view_hnd(&c->shape, k, v, c->planes, &c->view));
        break;
    case LAYOUT_HND_FUSED:
        assert_ok(baton_kv_view_hnd(&c->shape, k, NULL, c->planes, &c->view));
        break;
    case LAYOUT_FLASHINFER:
    case LAYOUT_FLASHINFER_HND:
        assert_ok(baton_kv_view_flashinfer(&c->shape, c->layout == LAYOUT_FLASHINFER_HND, k,
                                           c->planes, &c->view));
        break;
    case LAYOUT_MLA:
        assert_ok(baton_kv_view_mla(&c->shape, k, c->planes, &c->view));
        break;
    case LAYOUT_CROSS_LAYER: {
        /* No initialiser: one block of it is a split view, the rest follows at a wider step. */
        baton_kv_shape block = c->shape;
        block.n_blocks = 1;
        assert_ok(baton_kv_view_split(&block, k, v, c->planes, &c->view));
        c->view.n_blocks = c->shape.n_blocks;
        c->view.block_stride_bytes *= 2 * (uint64_t)c->shape.n_layers;
        break;
    }
    default:
        assert_ok(baton_kv_view_split(&c->shape, k, v, c->planes, &c->view));
    }
    if (c->layout == LAYOUT_SPLIT_PADDED)
        c->view.block_stride_bytes += PADDING_BYTES;
    assert_ok(baton_kv_view_check(&c->view));
}

static void make_arena(kv_case *c, bt_rng *rng)
{
    static const uint64_t dims[] = {1, 3, 5, 8, 16, 33, 64, 100, 128, 576};
    static const uint64_t element_bytes[] = {1, 2, 4};
    c->layout = (kv_layout)bt_rng_below(rng, N_LAYOUTS);
    c->shape = (baton_kv_shape){
        .n_layers = 1 + (uint32_t)bt_rng_below(rng, MAX_LAYERS),
        .n_blocks = 1 + (uint32_t)bt_rng_below(rng, 24),
        .block_tokens = c->layout == LAYOUT_SLOTS ? 1 : 1 + (uint32_t)bt_rng_below(rng, 17),
        .n_kv_heads = has_one_plane(c) ? 1 : 1 + (uint32_t)bt_rng_below(rng, 4),
        .head_bytes = dims[bt_rng_below(rng, 10)] * element_bytes[bt_rng_below(rng, 3)],
    };
    uint64_t planes = has_one_plane(c) ? 1 : 2;
    c->arena_bytes = c->shape.n_layers * planes * c->shape.n_blocks * block_bytes(c);
    uint8_t *bytes = bt_calloc(c->arena_bytes, 1);
    assert_non_null(bytes);
    bt_rng_fill(rng, bytes, c->arena_bytes);
    c->arena = bt_guarded_copy(bytes, c->arena_bytes);
    bt_free(bytes);
}

/* Distinct slots in a random order that contains runs up and down, and skipped tokens. */
static void make_slots(kv_case *c, bt_rng *rng)
{
    uint64_t n_slots = (uint64_t)c->shape.n_blocks * c->shape.block_tokens;
    bool taken[24 * 17] = {false};
    uint32_t n = 0;
    uint32_t wanted = (uint32_t)bt_rng_below(rng, n_slots + 1);
    while (n < wanted) {
        uint64_t slot = bt_rng_below(rng, n_slots);
        uint64_t step = bt_rng_below(rng, 3) == 0 ? UINT64_MAX : 1; /* down or up */
        uint64_t length = 1 + bt_rng_below(rng, 40);
        for (; length > 0 && n < wanted && slot < n_slots && !taken[slot]; slot += step, length--) {
            taken[slot] = true;
            c->slots[n++] = (int64_t)slot;
        }
        if (bt_rng_below(rng, 4) == 0)
            c->slots[n < wanted ? n++ : n - (n > 0)] = -1 - (int64_t)bt_rng_below(rng, 5);
    }
    c->tokens = (baton_kv_tokens){.slots = c->slots, .n_tokens = n};
}

/* A shuffled block table; slots[] says in the other form what it means. */
static void make_blocks(kv_case *c, bt_rng *rng)
{
    uint32_t n = c->shape.n_blocks;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t j = (uint32_t)bt_rng_below(rng, i + 1);
        c->blocks[i] = c->blocks[j];
        c->blocks[j] = i;
    }
    uint64_t covered = (uint64_t)n * c->shape.block_tokens;
    uint64_t first = bt_rng_below(rng, covered);
    c->tokens = (baton_kv_tokens){.blocks = c->blocks, .n_blocks = n, .first_token = first};
    c->tokens.n_tokens = (uint32_t)bt_rng_below(rng, covered - first + 1);
    for (uint32_t t = 0; t < c->tokens.n_tokens; t++) {
        uint64_t p = first + t;
        c->slots[t] = (int64_t)(c->blocks[p / c->shape.block_tokens] * c->shape.block_tokens +
                                p % c->shape.block_tokens);
    }
}

void kv_case_create(kv_case *c, bt_rng *rng)
{
    make_arena(c, rng);
    make_view(c);
    if (bt_rng_below(rng, 2) == 0)
        make_slots(c, rng);
    else
        make_blocks(c, rng);
    c->first_layer = (uint32_t)bt_rng_below(rng, c->shape.n_layers);
    c->n_layers = 1 + (uint32_t)bt_rng_below(rng, c->shape.n_layers - c->first_layer);
    if (bt_rng_below(rng, 3) == 0) {
        c->first_layer = 0;
        c->n_layers = c->shape.n_layers;
    }
    assert_ok(baton_kv_layers_bytes(&c->view, c->n_layers, c->tokens.n_tokens, &c->page_bytes));
}

void kv_case_clone(const kv_case *c, kv_case *copy)
{
    *copy = *c;
    copy->arena = bt_guarded_copy(c->arena, c->arena_bytes);
    if (c->tokens.slots != NULL)
        copy->tokens.slots = copy->slots;
    else
        copy->tokens.blocks = copy->blocks;
    make_view(copy);
}

void kv_case_free(kv_case *c)
{
    bt_guarded_free(c->arena, c->arena_bytes);
}
