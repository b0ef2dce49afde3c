# Compiler, linker and output settings that hold for every target.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
# Programs too, so that they share the precompiled header with the libraries.
set(CMAKE_CXX_COMPILE_OPTIONS_PIE -fPIC)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib)
set_property(GLOBAL PROPERTY GLOBAL_DEPENDS_NO_CYCLES ON)

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()
# assert() stays off in Release; -g is left out because Torch's templates make it enormous.
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")

find_program(VIREO_CCACHE ccache)
if(VIREO_CCACHE)
  # The sloppiness is what ccache asks for with precompiled headers.
  set(VIREO_LAUNCHER ${CMAKE_COMMAND} -E env
      CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime ${VIREO_CCACHE})
  set(CMAKE_C_COMPILER_LAUNCHER ${VIREO_LAUNCHER})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${VIREO_LAUNCHER})
endif()
# Debian 12's own mold 1.10 never ends on some of these programs, and makes others that the loader refuses.
find_program(VIREO_MOLD mold)
if(VIREO_MOLD)
  execute_process(COMMAND ${VIREO_MOLD} --version OUTPUT_VARIABLE mold_version)
  if(mold_version MATCHES "mold ([0-9.]+)" AND CMAKE_MATCH_1 VERSION_GREATER_EQUAL 2)
    add_link_options(-fuse-ld=mold)
  endif()
endif()

# Ours alone: third-party headers come in as SYSTEM and are not warned about.
add_library(vireo_warnings INTERFACE)
target_compile_options(vireo_warnings INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wno-unknown-pragmas>)
