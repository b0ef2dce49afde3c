#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

// Python's pickle format, read without ever making a Python object: what is no plain value and no
// tensor of torch.save becomes an opaque node that remembers its class. (LibTorch's own unpickler
// drops every OrderedDict, and with it every state_dict; and it believes what a file says of a
// tensor's extent.)
namespace vireo {

struct PickleNode {
  enum class Kind {
    kNone,
    kBool,
    kInteger,
    kReal,
    kText,
    kList,        ///< list or tuple: `items`
    kDictionary,  ///< `items` alternate between keys and values
    kGlobal,      ///< a class or function: `text` is its name
    kStorage,     ///< of a tensor: `text` is the record's key, `type` "Float", `integer` its length
    kTensor,      ///< `items`: storage, offset, sizes, strides; none of them checked
    kObject,      ///< anything else: `text` is its class
  };
  Kind kind = Kind::kNone;
  int64_t integer = 0;
  std::string text, type;
  std::vector<const PickleNode*> items;

  /// "a number", "a Python object (argparse.Namespace)", ... for messages.
  std::string description() const;
};

/// Broken, or of a kind that torch.save does not write.
class PickleError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Reads one pickle (protocols 2 to 5). The nodes live as long as the reader; memory is bounded by
/// a small multiple of the pickle's length.
class PickleReader {
 public:
  explicit PickleReader(std::string_view bytes) : bytes_(bytes) {}
  /// Throws PickleError.
  const PickleNode* read();

 private:
  using Kind = PickleNode::Kind;

  bool step();  // one instruction; false at the end
  void constant(unsigned char code);
  void container(unsigned char code);
  void memory(unsigned char code);
  void call(unsigned char code);

  std::string_view take(uint64_t count);
  uint64_t number(int bytes);
  std::string line();
  void spend(size_t amount);
  PickleNode* push(Kind kind, std::string text = "", int64_t integer = 0);
  PickleNode* pop();
  PickleNode* top();
  std::vector<const PickleNode*> pop_to_mark();
  PickleNode* called(const PickleNode& function, const PickleNode& arguments);
  PickleNode* storage_of(const PickleNode& id);

  std::string_view bytes_;
  size_t at_ = 0;
  std::deque<PickleNode> nodes_;
  std::vector<PickleNode*> stack_;
  std::vector<size_t> marks_;
  std::map<uint64_t, PickleNode*> memo_;
  size_t spent_ = 0;  // letters and items that were copied
};

}  // namespace vireo
