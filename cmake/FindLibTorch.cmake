# LibTorch from the PyPI wheel, without the CUDA toolkit that find_package(Torch) insists on.
#
#   LibTorch_ROOT       the wheel's torch folder; by default asked of VIREO_PYTHON
#   VIREO_PYTHON        a Python that has the wheel; by default .deps/venv of this checkout
#
# Defines LibTorch::cpu and, where the wheel holds it, LibTorch::cuda.
if(NOT LibTorch_ROOT)
  set(VIREO_PYTHON ${CMAKE_SOURCE_DIR}/.deps/venv/bin/python3 CACHE FILEPATH "A Python that has torch")
  execute_process(
      COMMAND ${VIREO_PYTHON} -c
              "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
      OUTPUT_VARIABLE LibTorch_ROOT OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  set(LibTorch_ROOT "${LibTorch_ROOT}" CACHE PATH "The wheel's torch folder" FORCE)
endif()

find_path(LibTorch_INCLUDE_DIR torch/torch.h NO_DEFAULT_PATH
          PATHS ${LibTorch_ROOT}/include/torch/csrc/api/include)
foreach(name torch_cpu c10 torch_cuda c10_cuda)
  find_library(LibTorch_${name}_LIBRARY ${name} NO_DEFAULT_PATH PATHS ${LibTorch_ROOT}/lib)
endforeach()
# Torch brings its own OpenMP runtime; linking it, not the system's, keeps one thread pool.
file(GLOB LibTorch_gomp_LIBRARY ${LibTorch_ROOT}/lib/libgomp*.so*)

if(EXISTS ${LibTorch_ROOT}/version.py)
  file(STRINGS ${LibTorch_ROOT}/version.py version_line REGEX "^__version__ = '[^']+'")
  string(REGEX REPLACE ".*'([0-9.]+).*'" "\\1" LibTorch_VERSION "${version_line}")
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(LibTorch
    REQUIRED_VARS LibTorch_torch_cpu_LIBRARY LibTorch_c10_LIBRARY LibTorch_INCLUDE_DIR
    VERSION_VAR LibTorch_VERSION
    REASON_FAILURE_MESSAGE "run ./dev build, or give -DLibTorch_ROOT=<folder of the torch wheel>")

if(LibTorch_FOUND AND NOT TARGET LibTorch::cpu)
  add_library(LibTorch::cpu INTERFACE IMPORTED)
  target_include_directories(LibTorch::cpu SYSTEM INTERFACE
      ${LibTorch_INCLUDE_DIR} ${LibTorch_ROOT}/include)
  target_compile_options(LibTorch::cpu INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fopenmp>)
  target_link_libraries(LibTorch::cpu INTERFACE
      ${LibTorch_torch_cpu_LIBRARY} ${LibTorch_c10_LIBRARY} ${LibTorch_gomp_LIBRARY})
  # The wheel's libraries find each other by their own rpath; the linker need not follow them.
  target_link_options(LibTorch::cpu INTERFACE -Wl,--allow-shlib-undefined)
  if(LibTorch_torch_cuda_LIBRARY)
    add_library(LibTorch::cuda INTERFACE IMPORTED)
    target_link_libraries(LibTorch::cuda INTERFACE
        LibTorch::cpu ${LibTorch_torch_cuda_LIBRARY} ${LibTorch_c10_cuda_LIBRARY})
  endif()
endif()
