#include "service/names.h"

#include <algorithm>
#include <string>
#include <vector>

#include "gabion/v1/export.pb.h"
#include "gabion/v1/filter.pb.h"
#include "gabion/v1/image.pb.h"
#include "gabion/v1/pool.pb.h"
#include "google/api/field_behavior.pb.h"
#include "google/api/resource.pb.h"
#include "google/longrunning/operations.pb.h"

namespace gabion::service {
namespace {

struct ResourceType {
  std::string type;
  std::string pattern;
  bool service_assigns_ids;
};

ResourceType Describe(const google::protobuf::Descriptor* message) {
  const auto& resource = message->options().GetExtension(google::api::resource);
  const auto& name = message->FindFieldByName("name")->options();
  ResourceType type{resource.type(), resource.pattern(0), false};
  for (int i = 0; i < name.ExtensionSize(google::api::field_behavior); ++i) {
    type.service_assigns_ids |=
        name.GetExtension(google::api::field_behavior, i) == google::api::OUTPUT_ONLY;
  }
  return type;
}

// Operations are Google's message, and so declared beside it; their ids are the service's.
ResourceType DescribeOperations() {
  const auto& file = google::longrunning::Operation::descriptor()->file()->options();
  const auto& resource = file.GetExtension(google::api::resource_definition, 0);
  return {resource.type(), resource.pattern(0), true};
}

const std::vector<ResourceType>& Types() {
  static const auto* types = new std::vector<ResourceType>{
      Describe(v1::Pool::descriptor()),       Describe(v1::Image::descriptor()),
      Describe(v1::Filter::descriptor()),     Describe(v1::Export::descriptor()),
      Describe(v1::Connection::descriptor()), DescribeOperations()};
  return *types;
}

const ResourceType* Find(std::string_view type) {
  for (const ResourceType& candidate : Types()) {
    if (candidate.type == type) return &candidate;
  }
  return nullptr;
}

// Cuts the first segment off `path`.
std::string_view TakeSegment(std::string_view* path) {
  const size_t slash = path->find('/');
  const std::string_view segment = path->substr(0, slash);
  path->remove_prefix(slash == std::string_view::npos ? path->size() : slash + 1);
  return segment;
}

bool IsAssignedId(std::string_view id) {
  return !id.empty() && id.size() <= 63 && std::all_of(id.begin(), id.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
  });
}

bool Matches(const ResourceType& type, std::string_view name) {
  if (name.empty() || name.back() == '/') return false;
  std::string_view pattern = type.pattern;
  while (!pattern.empty()) {
    const std::string_view want = TakeSegment(&pattern);
    const std::string_view have = TakeSegment(&name);
    if (want.front() != '{') {
      if (want != have) return false;
    } else if (pattern.empty() && type.service_assigns_ids) {
      if (!IsAssignedId(have)) return false;
    } else if (!IsResourceId(have)) {
      return false;
    }
  }
  return name.empty();
}

}  // namespace

bool IsResourceId(std::string_view id) {
  return IsAssignedId(id) && id.front() >= 'a' && id.back() != '-';
}

bool IsNameOf(std::string_view type, std::string_view name) {
  const ResourceType* found = Find(type);
  return found != nullptr && Matches(*found, name);
}

std::string_view TypeOfName(std::string_view name) {
  for (const ResourceType& type : Types()) {
    if (Matches(type, name)) return type.type;
  }
  return {};
}

std::string_view PatternOf(std::string_view type) {
  const ResourceType* found = Find(type);
  return found == nullptr ? std::string_view() : std::string_view(found->pattern);
}

std::string_view ParentTypeOf(std::string_view child_type) {
  const std::string_view parent = ParentOf(PatternOf(child_type));
  for (const ResourceType& type : Types()) {
    if (!parent.empty() && type.pattern == parent) return type.type;
  }
  return {};
}

std::string_view CollectionOf(std::string_view type) {
  const std::string_view pattern = PatternOf(type);
  const size_t last = pattern.rfind('/');
  if (last == std::string_view::npos) return {};
  const std::string_view head = pattern.substr(0, last);
  return head.substr(head.rfind('/') + 1);
}

std::string_view IdOf(std::string_view name) { return name.substr(name.rfind('/') + 1); }

std::string_view CollectionOfName(std::string_view name) { return name.substr(0, name.find('/')); }

std::string_view ParentOf(std::string_view name) {
  const size_t last = name.rfind('/');
  if (last == std::string_view::npos || last == 0) return {};
  const size_t before = name.rfind('/', last - 1);
  return before == std::string_view::npos ? std::string_view() : name.substr(0, before);
}

std::string MakeName(std::string_view collection, std::string_view id) {
  return std::string(collection) + '/' + std::string(id);
}

}  // namespace gabion::service
