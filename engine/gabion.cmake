# Functions that every folder of Gabion uses to declare what it builds.

# Warnings are errors in all of our own code; generated code is compiled without them (proto/CMakeLists.txt).
add_library(gabion_options INTERFACE)
target_compile_options(gabion_options INTERFACE
  -Wall -Wextra -Wpedantic -Werror -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual -Wcast-align
  -Wno-missing-field-initializers)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # GCC 12 reports coroutine frames and inlined std::variant as uninitialized when it optimizes or instruments.
  target_compile_options(gabion_options INTERFACE -Wno-maybe-uninitialized -Wno-mismatched-new-delete)
endif()
target_include_directories(gabion_options INTERFACE ${PROJECT_SOURCE_DIR})

# gabion_library(NAME SRCS a.cc ... DEPS x y ...): a static library. DEPS states the row of the dependency table
# (engine/README.md) that the folder keeps; tests/tidy_test checks the include lines against the same table.
function(gabion_library name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  if(ARG_SRCS)
    add_library(${name} STATIC ${ARG_SRCS})
    target_link_libraries(${name} PUBLIC gabion_options ${ARG_DEPS})
  else()
    add_library(${name} INTERFACE)
    target_link_libraries(${name} INTERFACE gabion_options ${ARG_DEPS})
  endif()
endfunction()

# gabion_test(NAME SRCS x_test.cc ... DEPS ...): a GoogleTest binary that ctest runs as one test.
function(gabion_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SRCS;DEPS;LABELS" ${ARGN})
  add_executable(${name} ${ARG_SRCS})
  target_link_libraries(${name} PRIVATE gabion_options ${ARG_DEPS} GTest::gmock GTest::gtest_main)
  add_test(NAME ${name} COMMAND ${name})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}")
endfunction()
