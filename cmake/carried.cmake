# The small dependencies from the folder that `./dev carry` filled, for machines that have LibTorch and
# compilers but no Debian packages and no network. Defines the same vireo:: targets.
function(vireo_carried name)
  add_library(vireo_dep_${name} INTERFACE)
  target_include_directories(vireo_dep_${name} SYSTEM INTERFACE ${VIREO_CARRY}/include)
  target_compile_definitions(vireo_dep_${name} INTERFACE ${ARGN})
  add_library(vireo::${name} ALIAS vireo_dep_${name})
endfunction()

vireo_carried(spdlog FMT_HEADER_ONLY SPDLOG_FMT_EXTERNAL)
vireo_carried(json)
vireo_carried(toml TOML_HEADER_ONLY=1)
vireo_carried(cli11)
if(VIREO_BUILD_TESTS)
  set(INSTALL_GTEST OFF)
  add_subdirectory(${VIREO_CARRY}/googletest ${CMAKE_BINARY_DIR}/googletest EXCLUDE_FROM_ALL)
  foreach(name gtest gmock)
    if(NOT TARGET GTest::${name})
      add_library(GTest::${name} ALIAS ${name})
    endif()
  endforeach()
endif()
if(VIREO_BUILD_BENCHMARKS)
  add_library(benchmark::benchmark SHARED IMPORTED)
  set_target_properties(benchmark::benchmark PROPERTIES
      IMPORTED_LOCATION ${VIREO_CARRY}/lib/libbenchmark.so.1debian
      INTERFACE_INCLUDE_DIRECTORIES ${VIREO_CARRY}/include)
  add_library(benchmark::benchmark_main ALIAS benchmark::benchmark)
endif()
