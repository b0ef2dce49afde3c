#include "models/weights/pickle_reader.h"

#include <bit>
#include <cstring>

namespace vireo {
namespace {

// Instructions of the pickle machine, by the names of Python's pickletools.
enum Code : unsigned char {
  kMark = '(',
  kStop = '.',
  kNone = 'N',
  kNewTrue = 0x88,
  kNewFalse = 0x89,
  kBinInt = 'J',
  kBinInt1 = 'K',
  kBinInt2 = 'M',
  kLong1 = 0x8a,
  kBinFloat = 'G',
  kBinUnicode = 'X',
  kShortBinUnicode = 0x8c,
  kBinUnicode8 = 0x8d,
  kBinString = 'T',
  kShortBinString = 'U',
  kBinBytes = 'B',
  kShortBinBytes = 'C',
  kBinBytes8 = 0x8e,
  kEmptyDict = '}',
  kEmptyList = ']',
  kEmptyTuple = ')',
  kEmptySet = 0x8f,
  kTuple = 't',
  kTuple1 = 0x85,
  kTuple2 = 0x86,
  kTuple3 = 0x87,
  kDict = 'd',
  kList = 'l',
  kAppend = 'a',
  kAppends = 'e',
  kAddItems = 0x90,
  kSetItem = 's',
  kSetItems = 'u',
  kPop = '0',
  kBinPut = 'q',
  kLongBinPut = 'r',
  kMemoize = 0x94,
  kBinGet = 'h',
  kLongBinGet = 'j',
  kGlobal = 'c',
  kStackGlobal = 0x93,
  kReduce = 'R',
  kNewObj = 0x81,
  kNewObjEx = 0x92,
  kBuild = 'b',
  kBinPersId = 'Q',
  kProto = 0x80,
  kFrame = 0x95,
};

[[noreturn]] void broken(const std::string& what) {
  throw PickleError(what);
}

}  // namespace

std::string PickleNode::description() const {
  switch (kind) {
    case Kind::kNone:
      return "None";
    case Kind::kBool:
      return "a truth value";
    case Kind::kInteger:
    case Kind::kReal:
      return "a number";
    case Kind::kText:
      return "a text";
    case Kind::kList:
      return "a list";
    case Kind::kDictionary:
      return "a dictionary";
    case Kind::kTensor:
      return "a tensor";
    case Kind::kStorage:
      return "a storage";
    case Kind::kGlobal:
    case Kind::kObject:
      return "a Python object (" + text + ")";
  }
  return "";
}

const PickleNode* PickleReader::read() {
  while (step()) {
  }
  return pop();
}

bool PickleReader::step() {
  const auto code = static_cast<unsigned char>(take(1)[0]);
  switch (code) {
    case kStop:
      return false;
    case kProto:
      take(1);
      break;
    case kFrame:
      take(8);
      break;
    case kNone:
    case kNewTrue:
    case kNewFalse:
    case kBinInt:
    case kBinInt1:
    case kBinInt2:
    case kLong1:
    case kBinFloat:
    case kBinUnicode:
    case kShortBinUnicode:
    case kBinUnicode8:
    case kBinString:
    case kShortBinString:
    case kBinBytes:
    case kShortBinBytes:
    case kBinBytes8:
      constant(code);
      break;
    case kBinPut:
    case kLongBinPut:
    case kMemoize:
    case kBinGet:
    case kLongBinGet:
      memory(code);
      break;
    case kGlobal:
    case kStackGlobal:
    case kReduce:
    case kNewObj:
    case kNewObjEx:
    case kBuild:
    case kBinPersId:
      call(code);
      break;
    default:
      container(code);
  }
  return true;
}

void PickleReader::constant(unsigned char code) {
  const auto text = [&](int length_bytes) {
    push(Kind::kText, std::string(take(number(length_bytes))));
  };
  switch (code) {
    case kNone:
      push(Kind::kNone);
      break;
    case kNewTrue:
    case kNewFalse:
      push(Kind::kBool, "", code == kNewTrue ? 1 : 0);
      break;
    case kBinInt:
      push(Kind::kInteger, "", static_cast<int32_t>(number(4)));
      break;
    case kBinInt1:
      push(Kind::kInteger, "", static_cast<int64_t>(number(1)));
      break;
    case kBinInt2:
      push(Kind::kInteger, "", static_cast<int64_t>(number(2)));
      break;
    case kLong1: {
      const std::string_view digits = take(number(1));
      if (digits.size() > 8) {
        push(Kind::kReal);  // too large for any use here
        break;
      }
      uint64_t value = !digits.empty() && (digits.back() & 0x80) ? ~uint64_t{0} : 0;
      std::memcpy(&value, digits.data(), digits.size());
      push(Kind::kInteger, "", std::bit_cast<int64_t>(value));
      break;
    }
    case kBinFloat:
      take(8);
      push(Kind::kReal);
      break;
    case kShortBinUnicode:
    case kShortBinString:
    case kShortBinBytes:
      text(1);
      break;
    case kBinUnicode8:
    case kBinBytes8:
      text(8);
      break;
    default:
      text(4);
  }
}

void PickleReader::container(unsigned char code) {
  switch (code) {
    case kMark:
      marks_.push_back(stack_.size());
      break;
    case kPop:
      pop();
      break;
    case kEmptyDict:
      push(Kind::kDictionary);
      break;
    case kEmptyList:
    case kEmptyTuple:
      push(Kind::kList);
      break;
    case kEmptySet:
      push(Kind::kObject, "set");
      break;
    case kTuple:
    case kList:
    case kDict: {
      auto items = pop_to_mark();
      push(code == kDict ? Kind::kDictionary : Kind::kList)->items = std::move(items);
      break;
    }
    case kTuple1:
    case kTuple2:
    case kTuple3: {
      std::vector<const PickleNode*> items(static_cast<size_t>(code - kTuple1) + 1);
      for (size_t i = items.size(); i-- > 0;) items[i] = pop();
      push(Kind::kList)->items = std::move(items);
      break;
    }
    case kAppend:
    case kSetItem: {
      const PickleNode* last = pop();
      const PickleNode* key = code == kSetItem ? pop() : nullptr;
      if (key) top()->items.push_back(key);
      top()->items.push_back(last);
      break;
    }
    case kAppends:
    case kSetItems:
    case kAddItems: {
      const auto items = pop_to_mark();
      auto& target = top()->items;
      target.insert(target.end(), items.begin(), items.end());
      break;
    }
    default:
      broken("has the unknown instruction " + std::to_string(code) + " at byte " +
             std::to_string(at_ - 1));
  }
}

void PickleReader::memory(unsigned char code) {
  switch (code) {
    case kBinPut:
      memo_[number(1)] = top();
      break;
    case kLongBinPut:
      memo_[number(4)] = top();
      break;
    case kMemoize:
      memo_[memo_.size()] = top();
      break;
    default: {
      const auto found = memo_.find(number(code == kBinGet ? 1 : 4));
      if (found == memo_.end()) broken("refers to something that it has not defined");
      stack_.push_back(found->second);
    }
  }
}

void PickleReader::call(unsigned char code) {
  switch (code) {
    case kGlobal: {
      const std::string module = line();
      push(Kind::kGlobal, module + "." + line());
      break;
    }
    case kStackGlobal: {
      const PickleNode* name = pop();
      const PickleNode* module = pop();
      spend(module->text.size() + name->text.size());
      push(Kind::kGlobal, module->text + "." + name->text);
      break;
    }
    case kBinPersId: {
      const PickleNode* id = pop();
      stack_.push_back(storage_of(*id));
      break;
    }
    case kBuild:  // attributes, such as a state_dict's version numbers
      pop();
      top();
      break;
    case kNewObjEx:
      pop();
      [[fallthrough]];
    default: {
      const PickleNode* arguments = pop();
      const PickleNode* function = pop();
      stack_.push_back(called(*function, *arguments));
    }
  }
}

PickleNode* PickleReader::called(const PickleNode& function, const PickleNode& arguments) {
  PickleNode& result = nodes_.emplace_back();
  const auto& given = arguments.items;
  const auto is = [&](const char* name) { return function.text == name; };
  if (is("collections.OrderedDict") || is("collections.defaultdict") || is("builtins.dict")) {
    result.kind = Kind::kDictionary;
    if (is("collections.OrderedDict") && !given.empty())  // a list of pairs
      for (const PickleNode* pair : given[0]->items) {
        spend(pair->items.size());
        result.items.insert(result.items.end(), pair->items.begin(), pair->items.end());
      }
  } else if ((is("torch._utils._rebuild_tensor_v2") || is("torch._utils._rebuild_tensor")) &&
             given.size() >= 4 && given[0]->kind == Kind::kStorage) {
    result.kind = Kind::kTensor;
    result.items.assign(given.begin(), given.begin() + 4);
  } else if ((is("torch._utils._rebuild_parameter") ||
              is("torch._utils._rebuild_parameter_with_state")) &&
             !given.empty()) {
    spend(given[0]->items.size() + given[0]->text.size());
    result = *given[0];
  } else {
    spend(function.text.size());
    result.kind = Kind::kObject;
    result.text = function.text.empty() ? "of no class" : function.text;
  }
  return &result;
}

/// ("storage", torch.FloatStorage, "0", "cpu", 12)
PickleNode* PickleReader::storage_of(const PickleNode& id) {
  PickleNode& result = nodes_.emplace_back();
  const auto& part = id.items;
  const std::string prefix = "torch.", suffix = "Storage";
  if (part.size() < 5 || part[0]->text != "storage" || !part[1]->text.starts_with(prefix) ||
      !part[1]->text.ends_with(suffix)) {
    result.kind = Kind::kObject;
    result.text = "persistent object";
    return &result;
  }
  result.kind = Kind::kStorage;
  spend(part[1]->text.size() + part[2]->text.size());
  result.text = part[2]->text;
  result.type =
      part[1]->text.substr(prefix.size(), part[1]->text.size() - prefix.size() - suffix.size());
  result.integer = part[4]->integer;
  return &result;
}

std::string_view PickleReader::take(uint64_t count) {
  if (count > bytes_.size() - at_) broken("ends in the middle");
  const std::string_view part = bytes_.substr(at_, count);
  at_ += count;
  return part;
}

uint64_t PickleReader::number(int bytes) {
  uint64_t value = 0;
  std::memcpy(&value, take(static_cast<uint64_t>(bytes)).data(), static_cast<size_t>(bytes));
  return value;
}

std::string PickleReader::line() {
  const size_t end = bytes_.find('\n', at_);
  if (end == std::string_view::npos) broken("ends in the middle of a name");
  std::string text(bytes_.substr(at_, end - at_));
  at_ = end + 1;
  return text;
}

// What is named once can be called for again and again: a few bytes of each call must not copy it
// without end.
void PickleReader::spend(size_t amount) {
  spent_ += amount;
  if (spent_ > 16 * bytes_.size() + 4096) broken("grows without end as it is read");
}

PickleNode* PickleReader::push(Kind kind, std::string text, int64_t integer) {
  PickleNode& node = nodes_.emplace_back();
  node.kind = kind;
  node.text = std::move(text);
  node.integer = integer;
  stack_.push_back(&node);
  return &node;
}

PickleNode* PickleReader::top() {
  if (stack_.size() <= (marks_.empty() ? 0 : marks_.back())) broken("takes more than it has put");
  return stack_.back();
}

PickleNode* PickleReader::pop() {
  PickleNode* node = top();
  stack_.pop_back();
  return node;
}

std::vector<const PickleNode*> PickleReader::pop_to_mark() {
  if (marks_.empty()) broken("closes a list that it has not opened");
  std::vector<const PickleNode*> items(stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back()),
                                       stack_.end());
  stack_.resize(marks_.back());
  marks_.pop_back();
  return items;
}

}  // namespace vireo
