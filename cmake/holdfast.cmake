# The two functions every folder uses, and the flags they share.
add_library(hf_flags INTERFACE)
target_include_directories(hf_flags INTERFACE ${CMAKE_SOURCE_DIR}/src)
target_compile_options(hf_flags INTERFACE
  -Wall -Wextra -Wshadow -Werror
  $<$<COMPILE_LANGUAGE:CXX>:-Wconversion -Wnon-virtual-dtor -Woverloaded-virtual>
  $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CXX_COMPILER_ID:Clang>>:-Wunused-result -Wthread-safety>)
if(HF_SANITIZE)
  target_compile_options(hf_flags INTERFACE
    -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(hf_flags INTERFACE -fsanitize=address,undefined)
endif()
if(HF_FUZZ)
  # So that the fuzzer sees which lines of the libraries its input reaches.
  target_compile_options(hf_flags INTERFACE -fsanitize=fuzzer-no-link)
  target_link_options(hf_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
if(HF_TSAN)
  target_compile_options(hf_flags INTERFACE -fsanitize=thread)
  target_link_options(hf_flags INTERFACE -fsanitize=thread)
endif()

# hf_library(NAME deps...): every .cpp of this folder that is not *_test.cpp or *_fuzz.cpp or main.cpp; the
# *_test.cpp files beside them become the test program NAME_test, labelled with $HF_TEST_LABEL (default unit).
function(hf_library name)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cpp)
  set(tests ${sources})
  list(FILTER tests INCLUDE REGEX "_test\\.cpp$")
  list(FILTER sources EXCLUDE REGEX "(_test|_fuzz|/main)\\.cpp$")
  if(sources)
    add_library(${name} STATIC ${sources})
    target_link_libraries(${name} PUBLIC hf_flags ${ARGN})
  else()
    add_library(${name} INTERFACE)
    target_link_libraries(${name} INTERFACE hf_flags ${ARGN})
  endif()
  if(tests)
    hf_test(${name}_test ${tests} LINK ${name})
  endif()
endfunction()

# hf_test(NAME sources... LINK libraries... [LABEL label]): a GoogleTest program whose cases ctest lists one by one.
function(hf_test name)
  cmake_parse_arguments(arg "" "LABEL" "LINK" ${ARGN})
  if(NOT arg_LABEL)
    set(arg_LABEL unit)
  endif()
  add_executable(${name} ${arg_UNPARSED_ARGUMENTS})
  target_link_libraries(${name} PRIVATE hf_flags ${arg_LINK} GTest::gtest GTest::gtest_main)
  # The limit is for hangs: CMake's own, 5 s, is short for a sanitized program on a busy machine.
  gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST DISCOVERY_TIMEOUT 120 PROPERTIES LABELS ${arg_LABEL})
endfunction()

# hf_fuzz(NAME source libraries...): a libFuzzer program, only with HF_FUZZ.
function(hf_fuzz name source)
  if(HF_FUZZ)
    add_executable(${name} ${source})
    target_link_libraries(${name} PRIVATE hf_flags ${ARGN})
    target_compile_options(${name} PRIVATE -fsanitize=fuzzer)
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  endif()
endfunction()
