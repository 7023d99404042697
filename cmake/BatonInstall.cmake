# SPDX-License-Identifier: Apache-2.0
# What `cmake --install` gives: the two libraries, shared and static, headers, baton.pc, a CMake
# package, the programs and example configs.
#
#   libbaton_sender.so, libbaton_receiver.so   self-contained; export baton_* and nothing else
#   libbaton_sender.a,  libbaton_receiver.a    with libbaton_common.a, what they share
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(baton_common_modules bt_core bt_wire bt_store bt_transport bt_kernels)
set(baton_common_objects "")
foreach(module IN LISTS baton_common_modules)
    list(APPEND baton_common_objects $<TARGET_OBJECTS:${module}>)
endforeach()

# baton_library(NAME MODULE): lib<name>.so from all objects of the module and of what it shares with
# the other. Linking the module too brings the packaged libraries; its archive adds no object twice.
function(baton_library name module)
    set(exports ${PROJECT_SOURCE_DIR}/cmake/exports.map)
    add_library(${name} SHARED $<TARGET_OBJECTS:${module}> ${baton_common_objects})
    target_link_libraries(${name} PRIVATE bt_flags ${module})
    target_link_options(${name} PRIVATE -Wl,--version-script=${exports} -Wl,-z,defs)
    if(BATON_SANITIZE)
        # The sanitizer's runtime is in the program, not here.
        target_link_options(${name} PRIVATE -Wl,-z,undefs)
    endif()
    set_target_properties(${name} PROPERTIES LINK_DEPENDS ${exports} VERSION ${PROJECT_VERSION}
        SOVERSION ${PROJECT_VERSION_MAJOR} LINKER_LANGUAGE C INSTALL_RPATH_USE_LINK_PATH ON
        LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib)
    add_library(${name}_static STATIC $<TARGET_OBJECTS:${module}>)
    set_target_properties(${name}_static PROPERTIES OUTPUT_NAME ${name} LINKER_LANGUAGE C
        ARCHIVE_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib)
    install(TARGETS ${name} ${name}_static)
endfunction()
baton_library(baton_sender bt_sender)
baton_library(baton_receiver bt_receiver)
add_library(baton_common_static STATIC ${baton_common_objects})
set_target_properties(baton_common_static PROPERTIES OUTPUT_NAME baton_common LINKER_LANGUAGE C
    ARCHIVE_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib)
install(TARGETS baton_common_static)

# What a program linked with the static libraries needs besides, as pkg-config modules and as flags.
set(BATON_PC_REQUIRES libzmq yaml-0.1 libsodium libxxhash)
set(BATON_PC_LIBS -pthread -ldl)
if(UCX_ROOT)
    list(APPEND BATON_PC_LIBS -L${UCX_ROOT}/lib -lucp -lucs -Wl,-rpath,${UCX_ROOT}/lib)
else()
    list(APPEND BATON_PC_REQUIRES ucx)
endif()
if(BATON_CUDA)
    list(APPEND BATON_PC_LIBS ${BATON_CUDART} -lrt)
endif()
set(BATON_STATIC_LIBS "${BATON_PC_LIBS}")
list(JOIN BATON_PC_REQUIRES " " BATON_PC_REQUIRES)
list(JOIN BATON_PC_LIBS " " BATON_PC_LIBS)
# Relative, so that an installed tree may be moved.
file(RELATIVE_PATH BATON_PC_PREFIX /x/${CMAKE_INSTALL_LIBDIR}/pkgconfig /x)
foreach(file IN ITEMS baton.pc baton-static.pc)
    configure_file(cmake/${file}.in ${CMAKE_BINARY_DIR}/${file} @ONLY)
    install(FILES ${CMAKE_BINARY_DIR}/${file} DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endforeach()

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/baton)
configure_package_config_file(cmake/batonConfig.cmake.in ${CMAKE_BINARY_DIR}/batonConfig.cmake
    INSTALL_DESTINATION ${package_dir} PATH_VARS CMAKE_INSTALL_INCLUDEDIR CMAKE_INSTALL_LIBDIR)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/batonConfigVersion.cmake
    COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/batonConfig.cmake ${CMAKE_BINARY_DIR}/batonConfigVersion.cmake
    DESTINATION ${package_dir})

install(DIRECTORY include/baton DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN *.h)
install(DIRECTORY configs/ DESTINATION ${CMAKE_INSTALL_DATADIR}/baton/configs OPTIONAL)
get_property(programs GLOBAL PROPERTY BATON_PROGRAMS)
set_target_properties(${programs} PROPERTIES INSTALL_RPATH_USE_LINK_PATH ON)
install(TARGETS ${programs})
