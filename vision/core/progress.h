#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace vireo {

/// Progress of counted work on stderr: a bar with count, rate and time left on a terminal; a plain
/// line every few seconds elsewhere. Silent under --quiet. Safe to advance from several threads.
class Progress {
 public:
  /// `title` begins the line, for example "prepare". `total` 0: unknown.
  Progress(std::string title, int64_t total);
  /// Ends the line, as finish() does.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void advance(int64_t steps = 1);
  /// Sets the text at the line's end, for example "loss 0.31 Dice 0.87".
  void message(const std::string& text);
  /// Shows the final state and ends the line. Nothing is shown afterwards.
  void finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// "1 h 02 min", "3 min 20 s", "4.2 s".
std::string duration_text(double seconds);

}  // namespace vireo
