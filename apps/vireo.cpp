#include <exception>
#include <iostream>

#include <CLI/CLI.hpp>
#include <c10/util/Exception.h>

#include "apps/verbs.h"
#include "vision/core/error.h"

namespace {

int run(int argc, char** argv) {
  CLI::App app(
      "Vireo: train and run segmentation networks on RWKV blocks, without Python.\n"
      "Results go to stdout, messages to stderr. Exit code 0: done; 1: refused or failed, with a "
      "message; 2: usage.",
      "vireo");
  app.require_subcommand(1);
  app.set_version_flag("--version", VIREO_VERSION);
  app.failure_message(CLI::FailureMessage::simple);
  // In the order of the work; those that read image files need ITK and OpenCV.
#ifdef VIREO_WITH_IO
  vireo::add_phantom(app);
  vireo::add_prepare(app);
#endif
  vireo::add_train(app);
#ifdef VIREO_WITH_IO
  vireo::add_predict(app);
  vireo::add_evaluate(app);
  vireo::add_baseline(app);
  vireo::add_info(app);
  vireo::add_deidentify(app);
#endif
  vireo::add_bench(app);
  vireo::add_verify(app);
  vireo::add_import(app);

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const vireo::UsageError& error) {
    std::cerr << "vireo: " << error.what() << "\n";
    return 2;
  } catch (const c10::Error& error) {
    std::cerr << "vireo: LibTorch: " << error.what_without_backtrace() << "\n";
    return 1;
  } catch (const std::exception& error) {
    std::cerr << "vireo: " << error.what() << "\n";
    return 1;
  }
}
