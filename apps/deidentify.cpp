#include "vision/io/dicom/deidentify.h"

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "apps/verbs.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/core/interrupt.h"
#include "vision/core/log.h"
#include "vision/core/progress.h"
#include "vision/io/dicom/dicom_file.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;

constexpr const char* kDeidentifyFooter = R"(Example
  vireo deidentify export/ shared/ --key-file project.key --shift-dates

Writes a copy of every DICOM image of INPUT and the folders below it to
OUTPUT_FOLDER/PSEUDONYM/SERIES/NUMBER.dcm (DICOM PS3.15, Basic Application Level Confidentiality
Profile). Kept are pixels, geometry and the acquisition in numbers and coded words; names, text,
dates, private attributes and overlays go, at every depth; UIDs are replaced, everywhere alike.

--key-file: the same key gives the same pseudonyms, UIDs and dates, so that later exports fit. It is
made where it does not exist. Keep it secret. Without it every run has a key that nobody knows.

Pixels are not looked at: files that may have names burned in are listed. Reports, structure sets
and other files that are no images are left out.

Exit code 0: all images written; 1: some were left out, listed at the end; 2: usage.)";

struct DeidentifyArguments {
  fs::path input, output, key_file;
  bool shift_dates = false;
};

std::string key_of(const fs::path& file) {
  if (file.empty()) return random_key();
  if (!fs::exists(file)) write_text_atomically(file, random_key() + "\n");
  std::string key = read_text(file);
  while (!key.empty() && (key.back() == '\n' || key.back() == '\r')) key.pop_back();
  if (key.size() < 16)
    throw DataError(
        file, "holds no key: at least 16 characters were expected; delete it to have one made");
  return key;
}

void run_deidentify(const DeidentifyArguments& arguments) {
  const DeidentifyOptions options{key_of(arguments.key_file), arguments.shift_dates};
  const std::vector<fs::path> files = dicom_files(arguments.input);
  if (files.empty()) throw DataError(arguments.input, "holds no DICOM files");
  std::vector<std::string> left_out, warnings;
  const InterruptGuard guard;
  Progress progress("deidentify", static_cast<int64_t>(files.size()));
  for (const fs::path& file : files) {
    throw_if_interrupted("run the same command again to continue");
    try {
      const Deidentified done = deidentify(file, arguments.output, options);
      if (!done.warning.empty()) warnings.push_back(done.output.string() + ": " + done.warning);
    } catch (const DataError& error) {
      left_out.push_back(error.what());
    }
    progress.advance();
  }
  for (const std::string& warning : warnings) log_warning(warning);
  std::cout << files.size() - left_out.size() << " image(s) written to "
            << arguments.output.string() << std::endl;
  if (left_out.empty()) return;
  std::string message = std::to_string(left_out.size()) + " file(s) left out:";
  for (const std::string& line : left_out) message += "\n  " + line;
  throw Error(message);
}

}  // namespace

void add_deidentify(CLI::App& app) {
  auto arguments = std::make_shared<DeidentifyArguments>();
  CLI::App* verb =
      app.add_subcommand("deidentify", "Copy DICOM images without what tells whose they are");
  verb->add_option("INPUT", arguments->input, "A DICOM file, or a folder")->required();
  verb->add_option("OUTPUT_FOLDER", arguments->output, "Where the copies go")->required();
  verb->add_option(
      "--key-file", arguments->key_file, "The secret that decides pseudonyms, UIDs and dates");
  verb->add_flag("--shift-dates",
                 arguments->shift_dates,
                 "Move dates by days drawn per patient, instead of removing them");
  verb->footer(kDeidentifyFooter);
  verb->callback([arguments] { run_deidentify(*arguments); });
}

}  // namespace vireo
