// The server's side of fixed newstyle negotiation as a state machine without sockets: bytes in,
// bytes and decisions out. How the input is cut into pieces makes no difference.
//
// One connection's session owns it and feeds it:
//
//   Handshake handshake(config);
//   handshake.Start(&out);                                   // the greeting
//   step = handshake.Consume(input, &used, &out);            // until used == input.size()
//     kContinue    -> all input is used: send `out`, receive more, Consume again
//     kNeedExport  -> look up wanted_export(), step = ProvideExport(...)
//     kNeedList    -> step = ProvideList(...)
//                     (input may be left: Consume it before receiving more)
//     kTransmission-> send `out`; TakeNegotiated(); what is left of the input are requests
//     kClose       -> send `out`, then close;  kDrop -> close at once;  reason() is for the log
//
// Nothing is looked up before the client names an export, so nobody can make the server open an
// image by connecting. Sending `out` before each further call bounds its size to one answer;
// deadlines are the session's business.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/base/units.h"
#include "engine/nbd/protocol/codec.h"
#include "engine/nbd/protocol/export_info.h"
#include "engine/nbd/protocol/meta_context.h"
#include "engine/nbd/protocol/option_payload.h"
#include "engine/nbd/protocol/wire.h"

namespace gabion::nbd {

// Option payloads: up to the first limit they are read; up to the second they are skipped and
// answered NBD_REP_ERR_TOO_BIG; a client that announces more is dropped.
inline constexpr uint32_t kMaxOptionPayload = 1 * kMiB;
inline constexpr uint32_t kMaxSkippedPayload = 32 * kMiB;

struct HandshakeConfig {
  uint32_t max_options = 1024;        // a client that sends more is dropped
  size_t max_context_queries = 1024;  // in one option
  bool allow_list = true;             // false: NBD_OPT_LIST gets NBD_REP_ERR_POLICY
};

// What both sides know when the transmission phase begins.
struct Negotiated {
  std::string requested_name;  // as the client wrote it; exported.name is the canonical one
  ExportInfo exported;
  uint16_t transmission_flags = 0;
  bool structured = false;
  bool block_sizes_requested =
      false;  // in the GO that ended the handshake: the client is bound by them
  std::vector<MetaContext> meta_contexts;
};

// Owned by one session and called on its shard only; methods return at once.
class Handshake {
 public:
  enum class Step { kContinue, kNeedExport, kNeedList, kTransmission, kClose, kDrop };

  explicit Handshake(const HandshakeConfig& config) : config_(config) {}

  // Appends the greeting. Call once, first.
  void Start(std::string* out);

  // Takes bytes from the front of `input`, says in `used` how many, and appends answers to `out`.
  // After kTransmission, kClose and kDrop it uses nothing more and repeats the step. REQUIRES: no
  // answer is outstanding (ProvideExport, ProvideList).
  Step Consume(Bytes input, size_t* used, std::string* out);

  // After kNeedExport: the name that the client asked for, "" for the default export. Valid until
  // ProvideExport().
  const std::string& wanted_export() const { return wanted_; }

  // Answers kNeedExport. An error is told to the client by its code: NOT_FOUND as "unknown";
  // UNAVAILABLE as "shutting down" and PERMISSION_DENIED and RESOURCE_EXHAUSTED as "policy", both
  // with the message, which must be fit for a client's eyes; any other as "unknown", without the
  // message. For an export that the peer may not see the caller says NOT_FOUND.
  Step ProvideExport(absl::StatusOr<ExportInfo> found, std::string* out);

  // Adds to the answer to kNeedList, which ProvideList() ends: for lists that are sent in parts.
  void ProvideListPart(absl::Span<const ListedExport> exports, std::string* out);

  // Answers kNeedList with the exports that this client may see, or the last of them.
  Step ProvideList(absl::Span<const ListedExport> exports, std::string* out);

  // REQUIRES: the last step was kTransmission; call once.
  Negotiated TakeNegotiated();

  // Why the handshake ended without transmission, in one sentence for the log.
  const std::string& reason() const { return reason_; }

 private:
  enum class State { kClientFlags, kOptionHeader, kPayload, kSkip, kAnswer, kEnded };

  // Moves bytes from `input` to field_ until that has `want` bytes; true when it has.
  bool Gather(Bytes* input, size_t want);
  // Runs one state on the bytes at hand.
  Step Advance(Bytes* input, std::string* out);

  Step OnClientFlags();
  Step OnOptionHeader();
  // The payload of option_ is complete: in field_, or skipped if nobody reads it.
  Step OnOption(std::string* out);
  Step OnExportName();
  Step OnInfo(std::string* out);
  Step OnMetaContext(std::string* out);

  Step AnswerExportName(const absl::StatusOr<ExportInfo>& found, std::string* out);
  Step AnswerInfo(const ExportInfo& found, std::string* out);
  Step AnswerMetaContext(const ExportInfo& found, std::string* out);

  bool Is(Option which) const { return option_.option == static_cast<uint32_t>(which); }
  Step NextOption();
  Step Ack(std::string* out);
  Step Refuse(std::string* out, OptionReply error, std::string_view message);
  Step RefuseExport(std::string* out, const absl::Status& status);
  Step AskForExport(std::string name);
  Step End(Step step, std::string reason);

  // The contexts selected for `name`, empty if they were selected for another name.
  absl::Span<const MetaContext> SelectionFor(std::string_view name) const;
  // OK if the export still has every context that the client was told it has selected.
  absl::Status SelectionStands(const ExportInfo& exported) const;
  Step EnterTransmission(const ExportInfo& exported, bool block_sizes_requested);

  const HandshakeConfig config_;

  State state_ = State::kClientFlags;
  Step end_ = Step::kContinue;  // the step that kEnded repeats
  std::string reason_;

  std::string field_;            // the field or payload being gathered
  OptionRequest option_;         // the option being handled
  uint32_t to_skip_ = 0;         // bytes of its payload still to be thrown away
  uint32_t options_ = 0;         // seen so far
  std::string wanted_;           // while an export is asked for
  InfoRequest info_;             // while INFO or GO waits for it
  MetaContextRequest contexts_;  // while LIST_META_CONTEXT or SET_META_CONTEXT waits for it

  // Negotiated so far.
  bool no_zeroes_ = false;
  bool structured_ = false;
  std::string selection_name_;  // the export name given with selection_
  std::vector<MetaContext> selection_;
  Negotiated negotiated_;
};

}  // namespace gabion::nbd
