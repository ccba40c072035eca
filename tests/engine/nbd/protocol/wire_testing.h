// A client's half of the wire for tests, written from the protocol document and not with the
// engine's encoders.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_replace.h"
#include "engine/base/bytes.h"
#include "engine/base/text.h"

namespace gabion::nbd::testing {

// "00 ff" <-> two bytes.
inline std::string FromHex(std::string_view hex) {
  return absl::HexStringToBytes(absl::StrReplaceAll(AsAbsl(hex), {{" ", ""}}));
}
inline std::string ToHex(std::string_view bytes) { return absl::BytesToHexString(AsAbsl(bytes)); }

inline std::string Be(uint64_t value, int bytes) {
  std::string out;
  for (int shift = (bytes - 1) * 8; shift >= 0; shift -= 8) {
    out.push_back(static_cast<char>(value >> shift));
  }
  return out;
}
inline std::string Be16(uint64_t value) { return Be(value, 2); }
inline std::string Be32(uint64_t value) { return Be(value, 4); }
inline std::string Be64(uint64_t value) { return Be(value, 8); }

inline std::string Text32(std::string_view text) { return Be32(text.size()) + std::string(text); }

inline constexpr uint32_t kOptExportName = 1, kOptAbort = 2, kOptList = 3, kOptPeek = 4,
                          kOptStartTls = 5, kOptInfo = 6, kOptGo = 7, kOptStructured = 8,
                          kOptListMeta = 9, kOptSetMeta = 10, kOptExtended = 11;

inline std::string OptionHeader(uint32_t option, uint32_t length) {
  return "IHAVEOPT" + Be32(option) + Be32(length);
}
inline std::string OptionBytes(uint32_t option, std::string_view payload = "") {
  return OptionHeader(option, static_cast<uint32_t>(payload.size())) + std::string(payload);
}
inline std::string InfoPayload(std::string_view name, const std::vector<uint16_t>& requests = {}) {
  std::string payload = Text32(name) + Be16(requests.size());
  for (uint16_t request : requests) payload += Be16(request);
  return payload;
}
inline std::string MetaPayload(std::string_view name, const std::vector<std::string>& queries) {
  std::string payload = Text32(name) + Be32(queries.size());
  for (const std::string& query : queries) payload += Text32(query);
  return payload;
}

struct Reply {
  uint32_t option;
  uint32_t type;
  std::string payload;
};

// Cuts option replies from `bytes`; an entry of type 0 stands for bytes that are none.
inline std::vector<Reply> ParseReplies(std::string_view bytes) {
  std::vector<Reply> replies;
  while (!bytes.empty()) {
    const std::byte* from = AsBytes(bytes).data();
    if (bytes.size() < 20 || LoadBe64(from) != 0x3e889045565a9 ||
        bytes.size() - 20 < LoadBe32(from + 16)) {
      replies.push_back(Reply{0, 0, std::string(bytes)});
      break;
    }
    const uint32_t length = LoadBe32(from + 16);
    replies.push_back(
        Reply{LoadBe32(from + 8), LoadBe32(from + 12), std::string(bytes.substr(20, length))});
    bytes.remove_prefix(20 + length);
  }
  return replies;
}

// The seed of a random test: GABION_SEED if set, so that a failure can be replayed, else
// `fallback`. Printed.
inline uint64_t TestSeed(uint64_t fallback) {
  const char* given = std::getenv("GABION_SEED");
  const uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 0) : fallback;
  std::cout << "GABION_SEED=" << seed << std::endl;
  return seed;
}

}  // namespace gabion::nbd::testing
