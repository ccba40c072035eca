#include "engine/nbd/protocol/request.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/base/align.h"

namespace gabion::nbd {
namespace {

constexpr uint32_t kDefaultMaximumPayload = 32 * kMiB;

// What the rules say about one command.
struct CommandRule {
  const char* name;
  uint16_t flags;             // command flags that may come with it, once advertised
  uint16_t needs_advertised;  // transmission flag without which the command is refused; 0: none
  bool writes;                // refused on a read-only export
  ErrorCode past_end;
};

// Indexed by Command.
constexpr CommandRule kRules[] = {
    {"READ", kFlagFua | kFlagDf, 0, false, ErrorCode::kEinval},
    {"WRITE", kFlagFua, 0, true, ErrorCode::kEnospc},
    {"DISC", 0xffff, 0, false, ErrorCode::kNone},
    {"FLUSH", kFlagFua, 0, false, ErrorCode::kEinval},
    {"TRIM", kFlagFua, kSendTrim, true, ErrorCode::kEinval},
    {"CACHE", kFlagFua, kSendCache, false, ErrorCode::kEinval},
    {"WRITE_ZEROES", kFlagFua | kFlagNoHole | kFlagFastZero, kSendWriteZeroes, true,
     ErrorCode::kEnospc},
    {"BLOCK_STATUS", kFlagFua | kFlagReqOne, 0, false, ErrorCode::kEinval},
};

const CommandRule* RuleOf(uint16_t command) {
  return command < std::size(kRules) ? &kRules[command] : nullptr;
}

std::string Describe(const Request& request) {
  return absl::StrCat(CommandName(request.command), " of ", request.length, " bytes at offset ",
                      request.offset);
}

template <typename... Parts>
Verdict Refuse(ErrorCode error, const Request& request, const Parts&... parts) {
  Verdict verdict;
  verdict.action = Verdict::Action::kRefuse;
  verdict.error = error;
  verdict.message = absl::StrCat(Describe(request), ": ", parts...);
  return verdict;
}

uint16_t AllowedFlags(const CommandRule& rule, const SessionTraits& session) {
  uint16_t allowed = rule.flags;
  if (!(session.transmission_flags & kSendFua)) allowed &= ~kFlagFua;
  if (!(session.transmission_flags & kSendDf)) allowed &= ~kFlagDf;
  if (!(session.transmission_flags & kSendFastZero)) allowed &= ~kFlagFastZero;
  return allowed;
}

// The rules that concern one command only.
Verdict CheckShape(const Request& request, const SessionTraits& session) {
  const uint32_t maximum = session.maximum_payload;
  if (request.Is(Command::kFlush) && (request.offset != 0 || request.length != 0)) {
    return Refuse(ErrorCode::kEinval, request, "offset and length of a FLUSH must be 0");
  }
  if (request.Is(Command::kBlockStatus)) {
    if (!session.has_meta_context) {
      return Refuse(ErrorCode::kEinval, request, "no metadata context was negotiated");
    }
    if (request.length == 0) return Refuse(ErrorCode::kEinval, request, "the length must not be 0");
  }
  if (request.Is(Command::kWrite) && request.length > maximum) {
    return Refuse(ErrorCode::kEinval, request, "the maximum payload is ", maximum, " bytes");
  }
  if (request.Is(Command::kRead) && request.length > maximum) {
    if (request.flags & kFlagDf) {
      return Refuse(ErrorCode::kEoverflow, request, "with DF the reply is one chunk of at most ",
                    maximum, " bytes");
    }
    if (!session.structured) {
      return Refuse(ErrorCode::kEinval, request, "the maximum payload is ", maximum,
                    " bytes, and the client did not negotiate structured replies");
    }
  }
  return Verdict();
}

Verdict Check(const Request& request, const SessionTraits& session, const CommandRule& rule) {
  if (rule.writes && (session.transmission_flags & kReadOnly)) {
    return Refuse(ErrorCode::kEperm, request, "the export is read-only");
  }
  if (rule.needs_advertised & ~session.transmission_flags) {
    return Refuse(ErrorCode::kEinval, request, "the export does not advertise this command");
  }
  if (const uint16_t bad = request.flags & ~AllowedFlags(rule, session); bad != 0) {
    return Refuse(ErrorCode::kEinval, request, "command flags 0x", absl::Hex(bad),
                  " are not valid here");
  }
  if (Verdict verdict = CheckShape(request, session); !verdict.ok()) return verdict;
  if (!request.RangeWithin(session.size)) {
    return Refuse(rule.past_end, request, "past the end of the export, which has ",
                  session.size.value, " bytes");
  }
  if (!IsMultiple(request.offset | request.length, session.required_alignment)) {
    return Refuse(ErrorCode::kEinval, request, "not aligned to the minimum block size of ",
                  session.required_alignment, " bytes");
  }
  return Verdict();
}

}  // namespace

uint32_t PayloadLimit(uint32_t advertised_maximum, bool block_sizes_requested) {
  if (block_sizes_requested) return advertised_maximum;
  return std::max(advertised_maximum, kDefaultMaximumPayload);
}

Verdict ValidateRequest(const Request& request, const SessionTraits& session) {
  // A client that leaves gets no reply, so there is nothing to refuse.
  if (request.Is(Command::kDisconnect)) return Verdict();

  const CommandRule* rule = RuleOf(request.command);
  if (rule == nullptr) return Refuse(ErrorCode::kEinval, request, "unknown command");

  Verdict verdict = Check(request, session, *rule);
  if (!request.Is(Command::kWrite)) return verdict;
  verdict.payload_bytes = request.length;
  if (request.length > session.maximum_payload && request.length > kMaxDiscardedPayload) {
    verdict.action = Verdict::Action::kHangUp;
    verdict.payload_bytes = 0;
  }
  return verdict;
}

std::string CommandName(uint16_t command) {
  const CommandRule* rule = RuleOf(command);
  return rule != nullptr ? std::string(rule->name) : absl::StrCat("command ", command);
}

}  // namespace gabion::nbd
