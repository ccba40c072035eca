#include "engine/nbd/protocol/option_reply.h"

#include <array>
#include <span>

#include "engine/base/bytes.h"
#include "engine/nbd/protocol/codec.h"
#include "engine/nbd/protocol/wire_string.h"

namespace gabion::nbd {
namespace {

template <size_t N>
void Append(std::string* out, const std::array<std::byte, N>& bytes) {
  out->append(AsText(bytes));
}

void AppendHeader(std::string* out, uint32_t option, OptionReply reply, size_t payload_length) {
  std::array<std::byte, kOptionReplyHeaderSize> header;
  EncodeOptionReplyHeader(header, option, reply, static_cast<uint32_t>(payload_length));
  Append(out, header);
}

}  // namespace

void AppendGreeting(std::string* out, uint16_t server_flags) {
  std::array<std::byte, kGreetingSize> greeting;
  EncodeGreeting(greeting, server_flags);
  Append(out, greeting);
}

void AppendAck(std::string* out, uint32_t option) {
  AppendHeader(out, option, OptionReply::kAck, 0);
}

void AppendRefusal(std::string* out, uint32_t option, OptionReply error, std::string_view message) {
  const std::string_view text = ClipUtf8(message, kMaxString);
  AppendHeader(out, option, error, text.size());
  out->append(text);
}

void AppendListed(std::string* out, uint32_t option, const ListedExport& listed) {
  if (listed.name.size() > kMaxString) return;
  const std::string_view description = ClipUtf8(listed.description, kMaxString);
  std::array<std::byte, sizeof(uint32_t)> name_length;
  StoreBe32(name_length.data(), static_cast<uint32_t>(listed.name.size()));
  AppendHeader(out, option, OptionReply::kServer,
               name_length.size() + listed.name.size() + description.size());
  Append(out, name_length);
  out->append(listed.name);
  out->append(description);
}

void AppendInfoExport(std::string* out, uint32_t option, ByteCount size, uint16_t flags) {
  std::array<std::byte, sizeof(WireInfoExport)> info;
  StoreBe16(info.data() + offsetof(WireInfoExport, type), static_cast<uint16_t>(InfoType::kExport));
  StoreBe64(info.data() + offsetof(WireInfoExport, size), size.value);
  StoreBe16(info.data() + offsetof(WireInfoExport, transmission_flags), flags);
  AppendHeader(out, option, OptionReply::kInfo, info.size());
  Append(out, info);
}

void AppendInfoBlockSize(std::string* out, uint32_t option, const BlockSizes& sizes) {
  std::array<std::byte, sizeof(WireInfoBlockSize)> info;
  StoreBe16(info.data() + offsetof(WireInfoBlockSize, type),
            static_cast<uint16_t>(InfoType::kBlockSize));
  StoreBe32(info.data() + offsetof(WireInfoBlockSize, minimum), sizes.minimum);
  StoreBe32(info.data() + offsetof(WireInfoBlockSize, preferred), sizes.preferred);
  StoreBe32(info.data() + offsetof(WireInfoBlockSize, maximum_payload), sizes.maximum_payload);
  AppendHeader(out, option, OptionReply::kInfo, info.size());
  Append(out, info);
}

void AppendInfoText(std::string* out, uint32_t option, InfoType type, std::string_view text) {
  const std::string_view shown = ClipUtf8(text, kMaxString);
  std::array<std::byte, sizeof(uint16_t)> type_field;
  StoreBe16(type_field.data(), static_cast<uint16_t>(type));
  AppendHeader(out, option, OptionReply::kInfo, type_field.size() + shown.size());
  Append(out, type_field);
  out->append(shown);
}

void AppendMetaContext(std::string* out, uint32_t option, uint32_t id, std::string_view name) {
  std::array<std::byte, sizeof(uint32_t)> id_field;
  StoreBe32(id_field.data(), id);
  AppendHeader(out, option, OptionReply::kMetaContext, id_field.size() + name.size());
  Append(out, id_field);
  out->append(name);
}

void AppendExportNameReply(std::string* out, ByteCount size, uint16_t flags, bool no_zeroes) {
  std::array<std::byte, sizeof(uint64_t) + sizeof(uint16_t)> fields;
  StoreBe64(fields.data(), size.value);
  StoreBe16(fields.data() + sizeof(uint64_t), flags);
  Append(out, fields);
  if (!no_zeroes) out->append(kExportNamePadding, '\0');
}

}  // namespace gabion::nbd
