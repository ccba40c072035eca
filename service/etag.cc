#include "service/etag.h"

#include <openssl/evp.h>

#include <array>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/text.h"
#include "google/protobuf/descriptor.h"
#include "service/errors.h"
#include "service/field_value.h"

namespace gabion::service {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

constexpr std::string_view kHashedFields[] = {"uid", "generation", "state", "delete_time"};
constexpr size_t kEtagBytes = 16;

// The value as text that differs if the value does.
std::string TextOf(const FieldValue& value) {
  if (const auto* text = std::get_if<std::string>(&value)) return *text;
  if (const auto* real = std::get_if<double>(&value)) return absl::StrCat(*real);
  const absl::int128 integer = std::get<absl::int128>(value);
  return absl::StrCat(absl::Int128High64(integer), "/", absl::Int128Low64(integer));
}

// What is hashed. The length of each part in front of it keeps different resources apart.
std::string Identity(const Message& resource) {
  std::string text;
  const auto add = [&text](std::string_view part) {
    absl::StrAppend(&text, part.size(), ":", AsAbsl(part), ";");
  };
  add(resource.GetDescriptor()->full_name());
  for (const std::string_view name : kHashedFields) {
    const FieldDescriptor* field = resource.GetDescriptor()->FindFieldByName(std::string(name));
    if (field == nullptr || field->is_repeated() || !HasOrder(KindOf(*field))) continue;
    if (!HasValue(resource, *field)) continue;
    add(name);
    add(TextOf(ReadValue(resource, *field)));
  }
  return text;
}

}  // namespace

std::string EtagOf(const Message& resource) {
  const std::string text = Identity(resource);
  std::array<char, EVP_MAX_MD_SIZE> digest{};
  CHECK_EQ(EVP_Digest(text.data(), text.size(), reinterpret_cast<unsigned char*>(digest.data()),
                      nullptr, EVP_sha256(), nullptr),
           1);
  return absl::StrCat("\"", absl::BytesToHexString({digest.data(), kEtagBytes}), "\"");
}

absl::Status CheckEtag(std::string_view given, const Message& resource) {
  if (given.empty()) return absl::OkStatus();
  const std::string current = EtagOf(resource);
  if (given == current) return absl::OkStatus();
  return Error(reason::kEtagMismatch,
               "The resource has changed since it had the etag given: read it again.")
      .Metadata("etag", current);
}

}  // namespace gabion::service
