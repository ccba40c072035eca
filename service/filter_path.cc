#include "service/filter_path.h"

#include <map>
#include <utility>

#include "service/text.h"

namespace gabion::service {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::DescriptorPool;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::MessageFactory;
using google::protobuf::Reflection;
using Comparator = FilterComparator;

constexpr size_t kShownBytes = 60;

std::string Quote(std::string_view name) { return "\"" + Printable(name, kShownBytes) + "\""; }

// The message in an Any, if its type is linked and its bytes are of that type.
std::unique_ptr<Message> Unpack(const Message& any) {
  const Reflection& reflection = *any.GetReflection();
  const Descriptor& packed = *any.GetDescriptor();
  const std::string url = reflection.GetString(any, packed.FindFieldByNumber(1));
  const size_t slash = url.rfind('/');
  if (slash == std::string::npos) return nullptr;
  const Descriptor* type =
      DescriptorPool::generated_pool()->FindMessageTypeByName(url.substr(slash + 1));
  if (type == nullptr) return nullptr;
  const Message* prototype = MessageFactory::generated_factory()->GetPrototype(type);
  if (prototype == nullptr) return nullptr;
  std::unique_ptr<Message> message(prototype->New());
  const std::string value = reflection.GetString(any, packed.FindFieldByNumber(2));
  return message->ParseFromString(value) ? std::move(message) : nullptr;
}

// The types that `field`, a google.protobuf.Any, holds, where that is known.
std::vector<const Descriptor*> TypesIn(const FieldDescriptor& field) {
  static const std::map<std::string_view, std::vector<std::string>>* const kTypes =
      new std::map<std::string_view, std::vector<std::string>>{
          {"google.longrunning.Operation.metadata", {"gabion.v1.JobMetadata"}},
          {"google.longrunning.Operation.response",
           {"gabion.v1.CheckImageResponse", "gabion.v1.Export", "gabion.v1.Image",
            "google.protobuf.Empty"}},
          {"google.rpc.Status.details",
           {"google.rpc.BadRequest", "google.rpc.ErrorInfo", "google.rpc.PreconditionFailure",
            "google.rpc.QuotaFailure", "google.rpc.RequestInfo", "google.rpc.ResourceInfo",
            "google.rpc.RetryInfo"}},
      };
  std::vector<const Descriptor*> types;
  const auto found = kTypes->find(field.full_name());
  if (found == kTypes->end()) return types;
  for (const std::string& name : found->second) {
    const Descriptor* type = DescriptorPool::generated_pool()->FindMessageTypeByName(name);
    if (type != nullptr) types.push_back(type);
  }
  return types;
}

// The name as a key of the map; nullopt if it cannot be one.
std::optional<FieldValue> KeyFor(const FieldDescriptor& map, const std::string& name) {
  switch (KindOf(*map.message_type()->map_key())) {
    case ValueKind::kText:
      return name;
    case ValueKind::kBool:
      if (name != "true" && name != "false") return std::nullopt;
      return absl::int128(name == "true");
    default:
      if (const auto number = ParseInteger(name)) return *number;
      return std::nullopt;
  }
}

}  // namespace

// Builds one BoundTerm.
class PathBinder {
 public:
  explicit PathBinder(FilterTerm term) : term_(std::move(term)) {}

  std::variant<BoundTerm, FilterFault> Run(const Descriptor& type) {
    const Descriptor* in = &type;
    for (size_t i = 0; i < term_.path.size() && in != nullptr && !fault_;) {
      in = Follow(*in, &i);
    }
    if (!fault_ && in != nullptr) AskAboutEnd();
    if (fault_) return *std::move(fault_);
    return std::move(bound_);
  }

 private:
  void Fail(size_t at, std::string what) { fault_ = FilterFault{at, std::move(what)}; }

  // Adds the steps of path[*i], and moves *i on. Returns the type in which the rest of the path
  // is, or null if nothing is left to bind.
  const Descriptor* Follow(const Descriptor& in, size_t* i) {
    const FilterField& name = term_.path[(*i)++];
    const FieldDescriptor* field = in.FindFieldByName(name.name);
    if (field == nullptr) {
      Fail(name.at, in.name() + " has no field " + Quote(name.name));
      return nullptr;
    }
    if (field->is_map()) {
      NamesKey(*i, true);
      bound_.steps_.push_back({field, std::nullopt});
      if (*i == term_.path.size()) return &in;
      field = FollowKey(*field, term_.path[(*i)++]);
      if (fault_) return nullptr;
      if (*i == term_.path.size() && AsksForPresence()) return &in;
    }
    bound_.steps_.push_back({field, std::nullopt});
    return Descend(in, *field, *i);
  }

  // The step to the entry with that key. Returns the field with the entry's value.
  const FieldDescriptor* FollowKey(const FieldDescriptor& map, const FilterField& name) {
    std::optional<FieldValue> key = KeyFor(map, name.name);
    if (!key) Fail(name.at, Quote(name.name) + " cannot be a key of " + map.name());
    bound_.steps_.back().key = std::move(key);
    in_collection_ = true;
    return map.message_type()->map_value();
  }

  const Descriptor* Descend(const Descriptor& in, const FieldDescriptor& field, size_t i) {
    in_collection_ = in_collection_ || field.is_repeated();
    const ValueKind kind = KindOf(field);
    if (kind == ValueKind::kAny || kind == ValueKind::kMessage) NamesKey(i, !field.is_repeated());
    if (i == term_.path.size()) return &in;
    if (kind == ValueKind::kMessage) return field.message_type();
    if (kind == ValueKind::kAny) {
      term_.path.erase(term_.path.begin(), term_.path.begin() + static_cast<std::ptrdiff_t>(i));
      CheckPacked(field);
      bound_.question_ = BoundTerm::Packed{std::move(term_)};
      return nullptr;
    }
    Fail(term_.path[i].at, field.name() + " is " + std::string(NameOf(kind)) +
                               " and has no field " + Quote(term_.path[i].name));
    return nullptr;
  }

  // What fits none of the types that the Any can hold would be a filter that finds nothing.
  void CheckPacked(const FieldDescriptor& any) {
    std::optional<FilterFault> first;
    for (const Descriptor* type : TypesIn(any)) {
      auto bound = PathBinder(term_).Run(*type);
      auto* fault = std::get_if<FilterFault>(&bound);
      if (fault == nullptr) return;
      if (!first.has_value()) first = std::move(*fault);
    }
    if (first.has_value()) Fail(first->at, any.name() + ": " + first->what);
  }

  bool AsksForPresence() const {
    return term_.comparator == Comparator::kHas && term_.literal.is_any();
  }

  // `map:key` and `message:field` ask whether `map.key` and `message.field` are there.
  void NamesKey(size_t i, bool may) {
    if (!may || i != term_.path.size() || term_.comparator != Comparator::kHas) return;
    if (term_.literal.is_any()) return;
    if (term_.literal.has_wildcard()) {
      return Fail(term_.literal.at, "* stands for a whole name only; \\* in quotes is a star");
    }
    term_.path.push_back({term_.literal.Text(), term_.literal.at});
    term_.literal = {.pieces = {"", ""}, .at = term_.literal.at};
  }

  void AskAboutEnd() {
    const FieldDescriptor& field = *bound_.steps_.back().field;
    const ValueKind kind = KindOf(field);
    const size_t at = term_.path.back().at;
    if (kind == ValueKind::kBytes) return Fail(at, field.name() + " is bytes: not to be filtered");
    if (AsksForPresence()) {
      bound_.question_ = BoundTerm::Exists{};
      return;
    }
    if (!HasOrder(kind)) {
      return Fail(at, field.name() + (field.is_map() ? " is a map: name one of its keys, or use :"
                                                     : " is a message: name one of its fields"));
    }
    const auto has = in_collection_ ? ValueTest::Has::kIs : ValueTest::Has::kContains;
    auto test = ValueTest::Make(field, term_.comparator, term_.literal, has);
    if (auto* fault = std::get_if<FilterFault>(&test)) {
      fault_ = std::move(*fault);
    } else {
      bound_.question_ = std::get<ValueTest>(std::move(test));
    }
  }

  FilterTerm term_;
  bool in_collection_ = false;
  BoundTerm bound_;
  std::optional<FilterFault> fault_;
};

std::variant<BoundTerm, FilterFault> BoundTerm::Bind(const Descriptor& type, FilterTerm term) {
  return PathBinder(std::move(term)).Run(type);
}

bool BoundTerm::Matches(const Message& message) const { return WalkFrom(message, 0); }

// Recursion ends with the steps, which the parser has bounded.
bool BoundTerm::WalkFrom(const Message& message, size_t step) const {
  const FieldDescriptor& field = *steps_[step].field;
  if (steps_[step].key) return WalkEntry(message, step);
  const bool last = step + 1 == steps_.size();
  if (!field.is_repeated()) {
    if (last && std::holds_alternative<Exists>(question_)) return HasValue(message, field);
    if (field.has_presence() && !HasValue(message, field)) return false;
    return WalkOne(message, step, kSingular);
  }
  const int size = message.GetReflection()->FieldSize(message, &field);
  if (last && std::holds_alternative<Exists>(question_)) return size > 0;
  for (int i = 0; i < size; ++i) {
    if (WalkOne(message, step, i)) return true;
  }
  return false;
}

bool BoundTerm::WalkOne(const Message& message, size_t step, int index) const {
  const FieldDescriptor& field = *steps_[step].field;
  const bool last = step + 1 == steps_.size();
  if (const auto* test = std::get_if<ValueTest>(&question_); last && test != nullptr) {
    return test->Matches(message, field, index);
  }
  const Reflection& reflection = *message.GetReflection();
  const Message& child = index == kSingular ? reflection.GetMessage(message, &field)
                                            : reflection.GetRepeatedMessage(message, &field, index);
  if (!last) return WalkFrom(child, step + 1);
  const std::unique_ptr<Message> unpacked = Unpack(child);
  if (unpacked == nullptr) return false;
  const auto bound = Bind(*unpacked->GetDescriptor(), std::get<Packed>(question_).rest);
  const auto* term = std::get_if<BoundTerm>(&bound);
  return term != nullptr && term->Matches(*unpacked);
}

bool BoundTerm::WalkEntry(const Message& message, size_t step) const {
  const Reflection& reflection = *message.GetReflection();
  const FieldDescriptor& field = *steps_[step].field;
  const FieldValue& key = *steps_[step].key;
  const int size = reflection.FieldSize(message, &field);
  for (int i = 0; i < size; ++i) {
    const Message& entry = reflection.GetRepeatedMessage(message, &field, i);
    if (CompareValues(ReadValue(entry, *entry.GetDescriptor()->map_key()), key) != 0) continue;
    return step + 1 == steps_.size() || WalkFrom(entry, step + 1);
  }
  return false;
}

}  // namespace gabion::service
