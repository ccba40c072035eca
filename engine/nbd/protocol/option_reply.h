// Replies to options, appended to the bytes that wait to be sent. Pure functions: any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/nbd/protocol/export_info.h"
#include "engine/nbd/protocol/meta_context.h"
#include "engine/nbd/protocol/wire.h"

namespace gabion::nbd {

void AppendGreeting(std::string* out, uint16_t server_flags);

// `option`: the number that the client sent, which every reply repeats.
void AppendAck(std::string* out, uint32_t option);

// A refusal; `message` is for people and is cut after 4096 bytes.
void AppendRefusal(std::string* out, uint32_t option, OptionReply error, std::string_view message);

// One export of NBD_OPT_LIST. Names longer than the protocol allows are not sent: nobody could ask
// for them.
void AppendListed(std::string* out, uint32_t option, const ListedExport& listed);

void AppendInfoExport(std::string* out, uint32_t option, ByteCount size, uint16_t flags);
void AppendInfoBlockSize(std::string* out, uint32_t option, const BlockSizes& sizes);
// NBD_INFO_NAME or NBD_INFO_DESCRIPTION; `text` is cut after 4096 bytes.
void AppendInfoText(std::string* out, uint32_t option, InfoType type, std::string_view text);

void AppendMetaContext(std::string* out, uint32_t option, uint32_t id, std::string_view name);

// What NBD_OPT_EXPORT_NAME gets: no option reply, but the bare values.
void AppendExportNameReply(std::string* out, ByteCount size, uint16_t flags, bool no_zeroes);

}  // namespace gabion::nbd
