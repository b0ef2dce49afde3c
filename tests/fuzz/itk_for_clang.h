// Debian's ITK is set up for GCC alone and refuses other compilers, needlessly. Included before all
// else where ITK is used.
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wbuiltin-macro-redefined"
#undef __clang__
#undef __GNUC__
#define __GNUC__ 12
#include <itk_compiler_detection.h>
#undef __GNUC__
#define __GNUC__ 4
#define __clang__ 1
#pragma clang diagnostic pop
