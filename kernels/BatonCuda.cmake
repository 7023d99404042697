# SPDX-License-Identifier: Apache-2.0
# Compiles the .cu files with nvcc, the toolkit's or PyPI's (nvidia-cuda-nvcc), and links the static
# runtime. No enable_language(CUDA): that would make nvcc link every program of the project.
find_program(BATON_NVCC nvcc HINTS $ENV{CUDA_HOME}/bin /usr/local/cuda/bin
    DOC "The CUDA compiler" REQUIRED)
set(BATON_CUDA_SM "80;90" CACHE STRING
    "Compute capabilities that the kernels are compiled for; newer GPUs get the last one's PTX")
get_filename_component(cuda_root ${BATON_NVCC} REALPATH)
get_filename_component(cuda_root ${cuda_root}/../.. ABSOLUTE)
get_filename_component(cuda_link_root ${BATON_NVCC}/../.. ABSOLUTE)
set(cuda_roots ${cuda_link_root} ${cuda_root})
set(cuda_suffixes lib64 lib targets/${CMAKE_SYSTEM_PROCESSOR}-linux/lib)
find_library(BATON_CUDART cudart_static PATHS ${cuda_roots} PATH_SUFFIXES ${cuda_suffixes}
    NO_DEFAULT_PATH REQUIRED)
find_path(BATON_CUDA_INCLUDE cuda_runtime_api.h PATHS ${cuda_roots}
    PATH_SUFFIXES include targets/${CMAKE_SYSTEM_PROCESSOR}-linux/include NO_DEFAULT_PATH REQUIRED)
message(STATUS "CUDA kernels: ${BATON_NVCC}, compute capabilities ${BATON_CUDA_SM}")
set(gencode)
foreach(arch IN LISTS BATON_CUDA_SM)
    list(APPEND gencode -gencode arch=compute_${arch},code=sm_${arch})
endforeach()
list(GET BATON_CUDA_SM -1 newest)
list(APPEND gencode -gencode arch=compute_${newest},code=compute_${newest})

set(nvcc_flags -std=c++17 -O3 -g ${gencode} --Werror all-warnings -D_GNU_SOURCE
    -I${CMAKE_CURRENT_BINARY_DIR}/../include-views/kernels
    -I${CMAKE_CURRENT_BINARY_DIR}/../include-views/core -I${PROJECT_SOURCE_DIR}/include
    -Xcompiler -fPIC,-fvisibility=hidden,-fno-exceptions,-fno-threadsafe-statics,-Wall,-Wextra,-fno-omit-frame-pointer)
add_custom_command(OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/kv_copy.cu.o
    COMMAND ${BATON_NVCC} ${nvcc_flags} -MD -MF kv_copy.cu.d -MT kv_copy.cu.o
        -c ${CMAKE_CURRENT_SOURCE_DIR}/kv_copy.cu -o kv_copy.cu.o
    DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/kv_copy.cu
    DEPFILE ${CMAKE_CURRENT_BINARY_DIR}/kv_copy.cu.d
    WORKING_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR} COMMENT "Building CUDA object kv_copy.cu.o"
    VERBATIM)
set_source_files_properties(${CMAKE_CURRENT_BINARY_DIR}/kv_copy.cu.o PROPERTIES
    EXTERNAL_OBJECT ON GENERATED ON)
target_sources(bt_kernels PRIVATE ${CMAKE_CURRENT_BINARY_DIR}/kv_copy.cu.o)
target_compile_definitions(bt_kernels PUBLIC BATON_CUDA)
target_link_libraries(bt_kernels PUBLIC ${BATON_CUDART} rt ${CMAKE_DL_LIBS} Threads::Threads)

# For C code that speaks to the runtime itself (the tests).
add_library(bt_cuda INTERFACE)
target_include_directories(bt_cuda SYSTEM INTERFACE ${BATON_CUDA_INCLUDE})
