#include "service/domain/identity.h"

#include <sys/random.h>

#include <array>
#include <charconv>
#include <chrono>
#include <cstddef>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "engine/base/check.h"
#include "engine/base/text.h"
#include "service/names.h"

namespace gabion::service {
namespace {

constexpr std::string_view kConnections = "/connections/";

}  // namespace

std::string NewUid() {
  std::array<unsigned char, 16> bytes;
  // Up to 256 bytes come whole once the kernel's generator is ready, which it is when daemons run.
  CHECK_EQ(getrandom(bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  bytes[6] = static_cast<unsigned char>((bytes[6] & 0x0f) | 0x40);  // version 4
  bytes[8] = static_cast<unsigned char>((bytes[8] & 0x3f) | 0x80);  // variant of RFC 9562
  const std::string hex = absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
  return absl::StrCat(hex.substr(0, 8), "-", hex.substr(8, 4), "-", hex.substr(12, 4), "-",
                      hex.substr(16, 4), "-", hex.substr(20));
}

google::protobuf::Timestamp Now() {
  const auto since_epoch = std::chrono::system_clock::now().time_since_epoch();
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(since_epoch);
  google::protobuf::Timestamp now;
  now.set_seconds(seconds.count());
  now.set_nanos(static_cast<int32_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(since_epoch - seconds).count()));
  return now;
}

std::string FormatConnectionName(const ConnectionName& name) {
  return absl::StrCat(name.export_name, AsAbsl(kConnections), name.id);
}

std::optional<ConnectionName> ParseConnectionName(std::string_view name) {
  if (!IsNameOf("gabion/Connection", name)) return std::nullopt;
  const std::size_t border = name.find(kConnections);
  CHECK(border != std::string_view::npos);
  const std::string_view digits = name.substr(border + kConnections.size());
  ConnectionName parsed{std::string(name.substr(0, border)), 0};
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), parsed.id);
  if (error != std::errc() || FormatConnectionName(parsed) != name) return std::nullopt;
  return parsed;
}

}  // namespace gabion::service
