# SPDX-License-Identifier: Apache-2.0
# The packaged libraries the project builds on. scripts/setup.sh installs them.
find_package(PkgConfig REQUIRED)
pkg_check_modules(ZMQ REQUIRED IMPORTED_TARGET libzmq>=4.3)
pkg_check_modules(YAML REQUIRED IMPORTED_TARGET yaml-0.1)
pkg_check_modules(UV REQUIRED IMPORTED_TARGET libuv>=1.40)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET libxxhash>=0.8)
pkg_check_modules(SODIUM REQUIRED IMPORTED_TARGET libsodium)
pkg_check_modules(OPENSSL REQUIRED IMPORTED_TARGET openssl>=3.0)
pkg_check_modules(JANSSON REQUIRED IMPORTED_TARGET jansson)

# msgpack-c is "msgpack" on Debian 12 and "msgpack-c" on newer releases.
pkg_check_modules(MSGPACK QUIET IMPORTED_TARGET msgpack-c)
if(NOT MSGPACK_FOUND)
    pkg_check_modules(MSGPACK REQUIRED IMPORTED_TARGET msgpack)
endif()
# Debian 13's msgpack-c.pc says "-Iinclude"; the headers are on the default path.
get_target_property(msgpack_includes PkgConfig::MSGPACK INTERFACE_INCLUDE_DIRECTORIES)
if(msgpack_includes AND NOT "${msgpack_includes}" MATCHES "^/")
    set_target_properties(PkgConfig::MSGPACK PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "")
endif()

# UCX: UCX_ROOT names a build of one's own (a vendor's, the PyPI wheel's), else the packaged one.
set(UCX_ROOT "$ENV{UCX_ROOT}" CACHE PATH "Prefix of the UCX to use; empty: the packaged one")
add_library(bt_ucx INTERFACE)
if(UCX_ROOT)
    find_library(UCP_LIB ucp HINTS ${UCX_ROOT}/lib REQUIRED NO_DEFAULT_PATH)
    find_library(UCS_LIB ucs HINTS ${UCX_ROOT}/lib REQUIRED NO_DEFAULT_PATH)
    target_include_directories(bt_ucx SYSTEM INTERFACE ${UCX_ROOT}/include)
    target_link_libraries(bt_ucx INTERFACE ${UCP_LIB} ${UCS_LIB})
    target_link_options(bt_ucx INTERFACE -Wl,-rpath,${UCX_ROOT}/lib)
else()
    pkg_check_modules(UCX REQUIRED IMPORTED_TARGET ucx>=1.13)
    target_link_libraries(bt_ucx INTERFACE PkgConfig::UCX)
endif()

# llhttp: a library on newer releases; Debian 12 ships its C sources in node-llhttp.
pkg_check_modules(LLHTTP QUIET IMPORTED_TARGET libllhttp)
add_library(bt_llhttp INTERFACE)
if(LLHTTP_FOUND)
    target_link_libraries(bt_llhttp INTERFACE PkgConfig::LLHTTP)
elseif(EXISTS /usr/share/llhttp/llhttp.c)
    add_library(bt_llhttp_src STATIC /usr/share/llhttp/api.c /usr/share/llhttp/http.c
        /usr/share/llhttp/llhttp.c)
    target_include_directories(bt_llhttp_src SYSTEM PUBLIC /usr/share/include/llhttp)
    # llhttp 8 is lenient about line ends unless told otherwise; 9 dropped the choice and is strict.
    target_compile_definitions(bt_llhttp_src PRIVATE LLHTTP_STRICT_MODE=1)
    target_link_libraries(bt_llhttp INTERFACE bt_llhttp_src)
else()
    message(FATAL_ERROR "llhttp: wanted libllhttp (pkg-config) or /usr/share/llhttp (Debian's "
        "node-llhttp), found neither; run scripts/setup.sh")
endif()

if(BATON_TESTS)
    pkg_check_modules(CMOCKA REQUIRED IMPORTED_TARGET cmocka)
endif()
