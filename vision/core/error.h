#pragma once

#include <filesystem>
#include <stdexcept>
#include <string>

// Vireo's errors. A message says what was found, what was expected and what to do; main() prints it
// and exits with 1 (2 for UsageError). Errors of ITK, OpenCV, DCMTK and LibTorch become one of
// these where they enter, in vision/io or in main().
namespace vireo {

class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The command line or a configuration asks for something that does not exist. Exit code 2.
class UsageError : public Error {
 public:
  using Error::Error;
};

/// A configuration is wrong. `where` is "file:line:column" or the key's name.
class ConfigError : public Error {
 public:
  ConfigError(const std::string& where, const std::string& what) : Error(where + ": " + what) {}
};

/// A file or folder is missing, broken or not what was expected; its path comes first.
class DataError : public Error {
 public:
  DataError(const std::filesystem::path& path, const std::string& what)
      : Error(path.string() + ": " + what) {}
};

/// The user asked to stop (SIGINT or SIGTERM) and everything worth keeping has been saved.
class Interrupted : public Error {
 public:
  using Error::Error;
};

}  // namespace vireo
