#include "service/domain/resource_diff.h"

#include <google/protobuf/util/message_differencer.h>

#include <memory>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/base/text.h"
#include "service/errors.h"
#include "service/validate.h"

namespace gabion::service {
namespace {

using google::protobuf::Message;
using google::protobuf::util::MessageDifferencer;

// Remembers the top-level fields of what is reported.
class TopLevelFields final : public MessageDifferencer::Reporter {
 public:
  using Path = std::vector<MessageDifferencer::SpecificField>;
  void ReportAdded(const Message&, const Message&, const Path& path) override { Add(path); }
  void ReportDeleted(const Message&, const Message&, const Path& path) override { Add(path); }
  void ReportModified(const Message&, const Message&, const Path& path) override { Add(path); }

  std::vector<std::string> names() const { return {names_.begin(), names_.end()}; }

 private:
  void Add(const Path& path) { names_.insert(path.front().field->name()); }

  std::set<std::string> names_;
};

std::unique_ptr<Message> WhatCallersSet(const Message& resource) {
  std::unique_ptr<Message> copy(resource.New());
  copy->CopyFrom(resource);
  ClearOutputOnly(copy.get());
  for (const char* field : {"name", "etag"}) {
    copy->GetReflection()->ClearField(copy.get(), copy->GetDescriptor()->FindFieldByName(field));
  }
  return copy;
}

}  // namespace

std::vector<std::string> DifferingFields(const Message& a, const Message& b) {
  TopLevelFields fields;
  MessageDifferencer differencer;
  differencer.ReportDifferencesTo(&fields);
  differencer.Compare(*WhatCallersSet(a), *WhatCallersSet(b));
  return fields.names();
}

absl::Status ExistsAlready(const Message& asked, const Message& stored, std::string_view type,
                           std::string_view name) {
  const std::vector<std::string> differing = DifferingFields(asked, stored);
  if (differing.empty()) return AlreadyExists(reason::kResourceExists, type, name);
  return Error(reason::kResourceExistsDifferent,
               absl::StrCat(AsAbsl(name), " exists already, and differs in ",
                            absl::StrJoin(differing, ", "), "."))
      .MetadataList("differing-fields", differing)
      .Resource(type, name);
}

}  // namespace gabion::service
