/* SPDX-License-Identifier: Apache-2.0 */
/* Which way bytes take for each pair of memory kinds, and why not a better one. */
#include "doctor/doctor_routes.h"
#include "doctorkit.h"

static bt_doctor_route routes[BT_DOCTOR_ROUTES_MAX];
static uint32_t n_routes;

static void find_routes(void)
{
    n_routes = bt_doctor_routes(&kit.facts, routes);
}

static const bt_doctor_route *route_of(baton_memory_kind from, baton_memory_kind pool, bool same)
{
    for (uint32_t i = 0; i < n_routes; i++)
        if (routes[i].from == from && routes[i].pool == pool && routes[i].same_host == same)
            return &routes[i];
    fail_msg("no such route");
    return NULL;
}

static void assert_route(const bt_doctor_route *route, const char *path, const char *how,
                         const char *why)
{
    assert_string_equal(route->path, path);
    if (strstr(route->how, how) == NULL)
        fail_msg("how: wanted %s, found %s", how, route->how);
    if (why == NULL ? route->why[0] != '\0' : strstr(route->why, why) == NULL)
        fail_msg("why: wanted %s, found %s", why != NULL ? why : "nothing", route->why);
}

#define HOST BATON_MEMORY_HOST
#define PINNED BATON_MEMORY_CUDA_HOST
#define DEVICE BATON_MEMORY_CUDA_DEVICE

static void use_devices(const char *const *devices, uint32_t n)
{
    kit.file.data.data_devices = devices;
    kit.file.data.n_data_devices = n;
}

static void a_plain_machine_maps_and_reaches_nobody(void **state)
{
    (void)state;
    bt_doctorkit_read(NULL);
    find_routes();
    assert_int_equal(n_routes, 2);
    assert_route(route_of(HOST, HOST, true), "mapped", "posix", NULL);
    assert_route(route_of(HOST, HOST, false), "", "no way", "loopback only");
}

static void without_shared_memory_tcp_is_taken(void **state)
{
    (void)state;
    bt_fakesys_file(&kit.fake, "up", "sys/class/net/eth0/operstate");
    const char *const devices[] = {"lo", "eth0"};
    use_devices(devices, 2);
    bt_doctorkit_read(NULL);
    kit.facts.offers.n_offers = 2; /* tcp */
    find_routes();
    assert_route(route_of(HOST, HOST, true), "staged", "tcp on lo", "no shared memory");
    assert_route(route_of(HOST, HOST, false), "staged", "tcp on eth0", "no RDMA");
    kit.facts.no_tcp = true;
    find_routes();
    assert_route(route_of(HOST, HOST, true), "", "no way", "data_tcp is off");
    kit.facts.no_tcp = false;
    kit.facts.require_rdma = true;
    find_routes();
    assert_route(route_of(HOST, HOST, false), "", "require_rdma", "no RDMA");
}

static void a_gpu_server_uses_cuda_ipc_and_gpudirect(void **state)
{
    (void)state;
    bt_doctorkit_add_gpu_server();
    const char *const devices[] = {"mlx5_0:1"};
    use_devices(devices, 1);
    bt_doctorkit_read(NULL);
    find_routes();
    assert_int_equal(n_routes, BT_DOCTOR_ROUTES_MAX);
    assert_route(route_of(HOST, HOST, true), "mapped", "posix", NULL);
    assert_route(route_of(HOST, PINNED, true), "mapped", "posix", NULL);
    assert_route(route_of(DEVICE, HOST, true), "mapped", "behind a copy to pinned memory", NULL);
    assert_route(route_of(DEVICE, DEVICE, true), "put", "cuda_ipc", NULL);
    assert_route(route_of(HOST, DEVICE, true), "staged", "RDMA on mlx5_0:1", "no mapping");
    assert_route(route_of(HOST, HOST, false), "staged", "RDMA on mlx5_0:1", NULL);
    assert_route(route_of(DEVICE, DEVICE, false), "put", "from the GPU's memory", NULL);
    /* Neither peermem nor dma-buf. */
    kit.facts.limits.nvidia_driver_is_open = false;
    find_routes();
    assert_route(route_of(DEVICE, DEVICE, false), "put", "RDMA", "no GPUDirect");
    assert_route(route_of(HOST, HOST, false), "staged", "RDMA", NULL);
    /* Nor a driver at all. */
    kit.facts.limits.nvidia_driver[0] = '\0';
    find_routes();
    assert_route(route_of(DEVICE, HOST, true), "", "no way", "no NVIDIA driver");
    assert_route(route_of(HOST, HOST, true), "mapped", "posix", NULL);
}

static void a_ucx_without_cuda_copies_through_pinned_memory(void **state)
{
    (void)state;
    bt_doctorkit_add_gpu_server();
    bt_fakesys_file(&kit.fake, "up", "sys/class/net/eth0/operstate");
    const char *const devices[] = {"eth0"};
    use_devices(devices, 1);
    bt_doctorkit_read(NULL);
    kit.facts.offers.has_cuda = false;
    find_routes();
    assert_route(route_of(DEVICE, DEVICE, true), "mapped", "the receiver copies to its GPU",
                 "knows no CUDA memory");
    assert_route(route_of(DEVICE, HOST, false), "staged", "behind a copy to pinned memory",
                 "data_devices names no port");
}

static void rdma_that_cannot_be_used_says_why(void **state)
{
    (void)state;
    bt_fakesys_add_rdma(&kit.fake, &(bt_fakesys_rdma){.name = "mlx5_0", .state = "1: DOWN"});
    const char *const devices[] = {"mlx5_0:1"};
    use_devices(devices, 1);
    bt_doctorkit_read(NULL);
    find_routes();
    assert_route(route_of(HOST, HOST, false), "", "no way", "not active");
    bt_fakesys_file(&kit.fake, "4: ACTIVE", "sys/class/infiniband/mlx5_0/ports/1/state");
    bt_doctorkit_read(NULL);
    kit.facts.offers.n_offers = 3;
    find_routes();
    assert_route(route_of(HOST, HOST, false), "", "no way", "no verbs");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_doctor_test(a_plain_machine_maps_and_reaches_nobody),
        bt_doctor_test(without_shared_memory_tcp_is_taken),
        bt_doctor_test(a_gpu_server_uses_cuda_ipc_and_gpudirect),
        bt_doctor_test(a_ucx_without_cuda_copies_through_pinned_memory),
        bt_doctor_test(rdma_that_cannot_be_used_says_why),
    };
    return bt_run_tests(tests);
}
