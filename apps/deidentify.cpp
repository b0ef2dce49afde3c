#include "vision/io/dicom/deidentify.h"

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>

#include "apps/verbs.h"
#include "vision/core/atomic_file.h"
#include "vision/core/error.h"
#include "vision/core/interrupt.h"
#include "vision/core/log.h"
#include "vision/core/progress.h"
#include "vision/io/dicom/dicom_folder.h"

namespace vireo {
namespace {

namespace fs = std::filesystem;

constexpr const char* kDeidentifyFooter = R"(Example
  vireo deidentify export/ shared/ --key-file project.key --shift-dates

Writes a copy of every DICOM image of INPUT and the folders below it to
OUTPUT_FOLDER/PSEUDONYM/SERIES/NUMBER.dcm (DICOM PS3.15, Basic Application Level Confidentiality
Profile). Kept are pixels, geometry and the acquisition in numbers and coded words; names, text,
dates, private attributes and overlays go, at every depth, and so do comments in JPEG and JPEG 2000
and what lies in unused bits of pixels; UIDs are replaced, everywhere alike. Files of one PatientID
are one patient's, however the name is written; without an identifier, those of one name are.

--key-file: the same key gives the same pseudonyms, UIDs and dates, so that later exports fit. It is
made where it does not exist. Keep it secret. Without it every run has a key that nobody knows.

Pictures are not looked at: those that may have names burned in are listed. Reports, structure sets
and other files that are no images are left out, and so is a file whose copy would take the place of
another's, because both have one SOPInstanceUID.

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
  Deidentifier deidentifier(arguments.output, {key_of(arguments.key_file), arguments.shift_dates});
  std::vector<LeftOutFile> no_dicom;
  const std::vector<fs::path> files = dicom_files(arguments.input, &no_dicom);
  if (files.empty()) throw DataError(arguments.input, "holds no DICOM files");
  std::vector<std::string> left_out;
  for (const LeftOutFile& file : no_dicom)
    left_out.push_back(file.path.string() + ": " + file.reason);
  size_t equal = 0;
  std::set<fs::path> outputs;
  // By folder and text: a series has one cause in all of its files.
  std::map<std::pair<std::string, std::string>, std::vector<std::string>> warnings;
  const InterruptGuard guard;
  Progress progress("deidentify", static_cast<int64_t>(files.size()));
  for (const fs::path& file : files) {
    throw_if_interrupted("run the same command again to continue");
    try {
      const Deidentified done = deidentifier.copy(file);
      if (!outputs.insert(done.output).second)
        ++equal;
      else if (!done.warning.empty())
        warnings[{done.output.parent_path().string(), done.warning}].push_back(
            done.output.filename().string());
    } catch (const DataError& error) {
      left_out.push_back(error.what());
    }
    progress.advance();
  }
  for (const auto& [cause, names] : warnings)
    log_warning(cause.first + "/" + names[0] +
                (names.size() == 1 ? "" : " and " + std::to_string(names.size() - 1) + " more") +
                ": " + cause.second);
  std::cout << outputs.size() << " image(s) written to " << arguments.output.string() << std::endl;
  if (equal > 0) log_info(std::to_string(equal) + " file(s) equal others and share their copies");
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
