# SPDX-License-Identifier: Apache-2.0
# How every target of the project is compiled, and the four functions that declare one:
#   baton_module(NAME ...)   a folder's code, a static library bt_NAME
#   baton_program(NAME ...)  an executable in build/<preset>/bin
#   baton_test(NAME ...)     a CMocka test in build/<preset>/tests
#   baton_fuzz(NAME ...)     a libFuzzer target, or a corpus replay where there is no fuzzer
set(CMAKE_C_STANDARD 17)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS OFF)
set(CMAKE_C_VISIBILITY_PRESET hidden)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)

option(BATON_WERROR "Treat warnings as errors" ON)
add_library(bt_flags INTERFACE)
target_compile_definitions(bt_flags INTERFACE _GNU_SOURCE BATON_VERSION="${PROJECT_VERSION}")
target_compile_options(bt_flags INTERFACE
    -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla
    -Wformat=2 -fno-omit-frame-pointer)
if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
    # At -O3 gcc cannot follow outputs that are set only on success, nor texts that are cut on
    # purpose; clang's checks and the sanitizers watch both.
    target_compile_options(bt_flags INTERFACE -Wno-maybe-uninitialized -Wno-format-truncation)
endif()
if(BATON_WERROR)
    target_compile_options(bt_flags INTERFACE -Werror)
endif()
if(BATON_SANITIZE)
    target_compile_options(bt_flags INTERFACE -fsanitize=${BATON_SANITIZE} -fno-sanitize-recover=all)
    target_link_options(bt_flags INTERFACE -fsanitize=${BATON_SANITIZE})
endif()
if(BATON_COVERAGE)
    # Atomic: counts of threads that meet would otherwise get lost, or even negative.
    target_compile_options(bt_flags INTERFACE --coverage -fprofile-update=atomic)
    target_link_options(bt_flags INTERFACE --coverage)
endif()
target_link_libraries(bt_flags INTERFACE Threads::Threads)

# The public headers, <baton/...>.
add_library(bt_public INTERFACE)
target_include_directories(bt_public INTERFACE ${CMAKE_CURRENT_SOURCE_DIR}/include)

# A module sees another module's headers, as "other/file.h", only when it links bt_other: each
# module has an include directory of its own that holds nothing but a link to its folder.
function(baton_module name)
    cmake_parse_arguments(ARG "" "" "SOURCES;LINK;PRIVATE_LINK" ${ARGN})
    set(view ${CMAKE_BINARY_DIR}/include-views/${name})
    file(MAKE_DIRECTORY ${view})
    if(NOT EXISTS ${view}/${name})
        file(CREATE_LINK ${CMAKE_CURRENT_SOURCE_DIR} ${view}/${name} SYMBOLIC)
    endif()
    add_library(bt_${name} STATIC ${ARG_SOURCES})
    target_include_directories(bt_${name} PUBLIC ${view})
    target_link_libraries(bt_${name} PUBLIC bt_public ${ARG_LINK} PRIVATE bt_flags ${ARG_PRIVATE_LINK})
    target_link_options(bt_${name} PUBLIC $<TARGET_PROPERTY:bt_flags,INTERFACE_LINK_OPTIONS>)
    set_property(GLOBAL APPEND PROPERTY BATON_MODULES bt_${name})
endfunction()

function(baton_program name)
    cmake_parse_arguments(ARG "" "" "SOURCES;LINK" ${ARGN})
    add_executable(${name} ${ARG_SOURCES})
    target_link_libraries(${name} PRIVATE bt_flags ${ARG_LINK})
    set_property(GLOBAL APPEND PROPERTY BATON_PROGRAMS ${name})
endfunction()

# baton_test(NAME SOURCES ... LINK ... [LABELS unit] [TIMEOUT 600] [ARGS ...] [ENV ...])
function(baton_test name)
    if(NOT BATON_TESTS)
        return()
    endif()
    cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;LINK;LABELS;ARGS;ENV" ${ARGN})
    if(NOT ARG_LABELS)
        set(ARG_LABELS unit)
    endif()
    if(ARG_TIMEOUT)
        set(timeout TIMEOUT ${ARG_TIMEOUT})
    endif()
    add_executable(${name} ${ARG_SOURCES})
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
    target_link_libraries(${name} PRIVATE bt_flags bt_test_support ${ARG_LINK})
    add_test(NAME ${name} COMMAND ${name} ${ARG_ARGS})
    baton_test_properties(${name} LABELS ${ARG_LABELS} ${timeout} ENV ${ARG_ENV})
endfunction()

# Labels, hang guard, skip code and sanitizer settings, for tests added with add_test. The guard is
# for what hangs, not for what is slow: it is many times what a test takes, because machines that
# build beside it are slower by as much.
function(baton_test_properties name)
    cmake_parse_arguments(ARG "" "TIMEOUT" "LABELS;ENV" ${ARGN})
    if(NOT ARG_TIMEOUT)
        set(ARG_TIMEOUT 600)
    endif()
    set(env
        "ASAN_OPTIONS=detect_leaks=1:abort_on_error=0:handle_segv=1"
        "LSAN_OPTIONS=suppressions=${PROJECT_SOURCE_DIR}/tests/support/sanitizers.supp:print_suppressions=0"
        "TSAN_OPTIONS=suppressions=${PROJECT_SOURCE_DIR}/tests/support/tsan.supp:halt_on_error=1"
        "UBSAN_OPTIONS=print_stacktrace=1"
        "UCX_HANDLE_ERRORS=none" "UCX_MEM_EVENTS=no" "UCX_MEM_MMAP_HOOK_MODE=none")
    if(name IN_LIST BATON_THREADED_TESTS)
        list(APPEND ARG_LABELS threads)
    endif()
    set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT ${ARG_TIMEOUT}
        SKIP_RETURN_CODE 77 ENVIRONMENT "${env};${ARG_ENV}")
endfunction()

# baton_fuzz(NAME SOURCES ... LINK ... CORPUS dir...): with BATON_FUZZ a libFuzzer program; otherwise
# a unit test that replays the corpus through the same entry point. The target `fuzzers` is all of
# them, and build/<preset>/fuzz/targets has a line for each: its name and its corpus (scripts/fuzz.sh).
add_custom_target(fuzzers)
function(baton_fuzz name)
    if(NOT BATON_TESTS)
        return()
    endif()
    cmake_parse_arguments(ARG "" "" "SOURCES;LINK;CORPUS" ${ARGN})
    add_executable(${name} ${ARG_SOURCES})
    add_dependencies(fuzzers ${name})
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/fuzz)
    target_link_libraries(${name} PRIVATE bt_flags ${ARG_LINK})
    target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests)
    if(BATON_FUZZ)
        target_compile_options(${name} PRIVATE -fsanitize=fuzzer)
        target_link_options(${name} PRIVATE -fsanitize=fuzzer)
        list(JOIN ARG_CORPUS " " corpus)
        set_property(GLOBAL APPEND_STRING PROPERTY BATON_FUZZERS "${name} ${corpus}\n")
    else()
        target_sources(${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests/fuzz/replay.c)
        add_test(NAME ${name} COMMAND ${name} ${ARG_CORPUS})
        baton_test_properties(${name} LABELS unit)
    endif()
endfunction()
