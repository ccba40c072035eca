#include "engine/nbd/protocol/handshake.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/bytes.h"
#include "engine/base/check.h"
#include "engine/base/text.h"
#include "engine/nbd/protocol/option_reply.h"
#include "engine/nbd/protocol/wire_string.h"

namespace gabion::nbd {
namespace {

constexpr size_t kClientFlagsSize = sizeof(uint32_t);

// The options whose payload is looked at; the others' is only counted.
bool ReadsPayload(uint32_t option) {
  switch (static_cast<Option>(option)) {
    case Option::kExportName:
    case Option::kInfo:
    case Option::kGo:
    case Option::kListMetaContext:
    case Option::kSetMetaContext:
      return true;
    default:
      return false;
  }
}

OptionReply ReplyFor(const absl::Status& malformed) {
  return malformed.code() == absl::StatusCode::kResourceExhausted ? OptionReply::kErrTooBig
                                                                  : OptionReply::kErrInvalid;
}

}  // namespace

void Handshake::Start(std::string* out) {
  AppendGreeting(out, kServerFixedNewstyle | kServerNoZeroes);
}

Handshake::Step Handshake::Consume(Bytes input, size_t* used, std::string* out) {
  CHECK(state_ != State::kAnswer);
  Bytes rest = input;
  Step step = Advance(&rest, out);
  while (step == Step::kContinue && !rest.empty()) step = Advance(&rest, out);
  *used = input.size() - rest.size();
  return step;
}

Handshake::Step Handshake::Advance(Bytes* input, std::string* out) {
  switch (state_) {
    case State::kClientFlags:
      return Gather(input, kClientFlagsSize) ? OnClientFlags() : Step::kContinue;
    case State::kOptionHeader:
      if (!Gather(input, kOptionHeaderSize)) return Step::kContinue;
      if (const Step step = OnOptionHeader(); step != Step::kContinue) return step;
      // An option without payload is complete: nothing more may come that would wake us up for it.
      return option_.length == 0 ? OnOption(out) : Step::kContinue;
    case State::kPayload:
      return Gather(input, option_.length) ? OnOption(out) : Step::kContinue;
    case State::kSkip: {
      const size_t take = std::min<size_t>(to_skip_, input->size());
      *input = input->subspan(take);
      to_skip_ -= static_cast<uint32_t>(take);
      return to_skip_ == 0 ? OnOption(out) : Step::kContinue;
    }
    case State::kAnswer:
    case State::kEnded:
      break;
  }
  return end_;
}

bool Handshake::Gather(Bytes* input, size_t want) {
  const size_t take = std::min(want - field_.size(), input->size());
  field_.append(AsText(input->first(take)));
  *input = input->subspan(take);
  return field_.size() == want;
}

Handshake::Step Handshake::OnClientFlags() {
  const uint32_t flags = LoadBe32(AsBytes(field_).data());
  if (const uint32_t unknown = flags & ~(kClientFixedNewstyle | kClientNoZeroes); unknown != 0) {
    return End(Step::kDrop, absl::StrCat("unknown client flags 0x", absl::Hex(unknown)));
  }
  // A client that does not claim fixed newstyle gets it all the same: what it does not know it will
  // not ask for.
  no_zeroes_ = (flags & kClientNoZeroes) != 0;
  return NextOption();
}

Handshake::Step Handshake::OnOptionHeader() {
  const auto header = DecodeOptionHeader(AsBytes(field_).first<kOptionHeaderSize>());
  field_.clear();
  if (!header) return End(Step::kDrop, "an option does not start with its magic number");
  option_ = *header;
  if (++options_ > config_.max_options) {
    return End(Step::kDrop, absl::StrCat("more than ", config_.max_options, " options"));
  }
  if (option_.length > kMaxSkippedPayload) {
    return End(Step::kDrop, absl::StrCat("option ", option_.option, " announces a payload of ",
                                         option_.length, " bytes"));
  }
  if (Is(Option::kExportName) && option_.length > kMaxString) {
    return End(Step::kClose, absl::StrCat("an export name of ", option_.length, " bytes"));
  }
  // Even a request that fails replaces the earlier selection.
  if (Is(Option::kSetMetaContext)) selection_.clear();
  if (ReadsPayload(option_.option) && option_.length <= kMaxOptionPayload) {
    state_ = State::kPayload;
  } else {
    state_ = State::kSkip;
    to_skip_ = option_.length;
  }
  return Step::kContinue;
}

Handshake::Step Handshake::OnOption(std::string* out) {
  // ABORT is acknowledged whatever comes with it.
  if (option_.length > kMaxOptionPayload && !Is(Option::kAbort)) {
    return Refuse(out, OptionReply::kErrTooBig,
                  absl::StrCat("the payload of ", option_.length, " bytes is longer than the ",
                               kMaxOptionPayload, " allowed"));
  }
  switch (static_cast<Option>(option_.option)) {
    case Option::kExportName:
      return OnExportName();
    case Option::kAbort:
      AppendAck(out, option_.option);
      return End(Step::kClose, "the client aborted the negotiation");
    case Option::kList:
      if (option_.length != 0) {
        return Refuse(out, OptionReply::kErrInvalid, "LIST takes no payload");
      }
      if (!config_.allow_list) {
        return Refuse(out, OptionReply::kErrPolicy, "this server does not list its exports");
      }
      state_ = State::kAnswer;
      return Step::kNeedList;
    case Option::kInfo:
    case Option::kGo:
      return OnInfo(out);
    case Option::kStructuredReply:
      if (option_.length != 0) {
        return Refuse(out, OptionReply::kErrInvalid, "STRUCTURED_REPLY takes no payload");
      }
      structured_ = true;
      return Ack(out);
    case Option::kListMetaContext:
    case Option::kSetMetaContext:
      return OnMetaContext(out);
    case Option::kStartTls:
      return Refuse(out, OptionReply::kErrUnsupported, "TLS is not configured");
    case Option::kPeekExport:
      break;
  }
  return Refuse(out, OptionReply::kErrUnsupported,
                absl::StrCat("option ", option_.option, " is not supported"));
}

Handshake::Step Handshake::OnExportName() {
  // This option has no way to report an error: what is wrong closes the connection.
  if (const absl::Status valid = ValidateString("export name", field_); !valid.ok()) {
    return End(Step::kClose, std::string(valid.message()));
  }
  return AskForExport(std::move(field_));
}

Handshake::Step Handshake::OnInfo(std::string* out) {
  absl::StatusOr<InfoRequest> request = DecodeInfoRequest(AsBytes(field_));
  if (!request.ok()) {
    return Refuse(out, ReplyFor(request.status()), AsStd(request.status().message()));
  }
  info_ = *std::move(request);
  return AskForExport(info_.export_name);
}

Handshake::Step Handshake::OnMetaContext(std::string* out) {
  if (!structured_) {
    return Refuse(out, OptionReply::kErrInvalid,
                  "metadata contexts need structured replies: negotiate those first");
  }
  absl::StatusOr<MetaContextRequest> request =
      DecodeMetaContextRequest(AsBytes(field_), config_.max_context_queries);
  if (!request.ok()) {
    return Refuse(out, ReplyFor(request.status()), AsStd(request.status().message()));
  }
  contexts_ = *std::move(request);
  return AskForExport(contexts_.export_name);
}

Handshake::Step Handshake::ProvideExport(absl::StatusOr<ExportInfo> found, std::string* out) {
  CHECK(state_ == State::kAnswer && !Is(Option::kList));
  if (Is(Option::kExportName)) return AnswerExportName(found, out);
  if (!found.ok()) return RefuseExport(out, found.status());
  if (Is(Option::kInfo) || Is(Option::kGo)) return AnswerInfo(*found, out);
  return AnswerMetaContext(*found, out);
}

void Handshake::ProvideListPart(absl::Span<const ListedExport> exports, std::string* out) {
  CHECK(state_ == State::kAnswer && Is(Option::kList));
  for (const ListedExport& listed : exports) AppendListed(out, option_.option, listed);
}

Handshake::Step Handshake::ProvideList(absl::Span<const ListedExport> exports, std::string* out) {
  ProvideListPart(exports, out);
  return Ack(out);
}

Handshake::Step Handshake::AnswerExportName(const absl::StatusOr<ExportInfo>& found,
                                            std::string* out) {
  if (!found.ok()) {
    return End(Step::kClose,
               absl::StrCat("export ", Quoted(wanted_), ": ", found.status().message()));
  }
  if (found->refuse_silent_clients) {
    return End(Step::kClose, absl::StrCat("export ", Quoted(wanted_),
                                          " is only for clients that ask for block sizes"));
  }
  if (const absl::Status stands = SelectionStands(*found); !stands.ok()) {
    return End(Step::kClose, std::string(stands.message()));
  }
  AppendExportNameReply(out, found->traits.size, TransmissionFlags(found->traits, structured_),
                        no_zeroes_);
  return EnterTransmission(*found, /*block_sizes_requested=*/false);
}

Handshake::Step Handshake::AnswerInfo(const ExportInfo& found, std::string* out) {
  if (found.refuse_silent_clients && !info_.wants_block_size) {
    return Refuse(out, OptionReply::kErrBlockSizeRequired,
                  absl::StrCat("export ", Quoted(wanted_), " has a minimum block size of ",
                               found.block_sizes.minimum,
                               " bytes: ask for NBD_INFO_BLOCK_SIZE and keep to it"));
  }
  if (const absl::Status stands = SelectionStands(found); !stands.ok()) {
    return Refuse(out, OptionReply::kErrInvalid, AsStd(stands.message()));
  }
  const uint32_t option = option_.option;
  AppendInfoExport(out, option, found.traits.size, TransmissionFlags(found.traits, structured_));
  if (info_.wants_name) AppendInfoText(out, option, InfoType::kName, found.name);
  if (info_.wants_description && !found.description.empty()) {
    AppendInfoText(out, option, InfoType::kDescription, found.description);
  }
  AppendInfoBlockSize(out, option, found.block_sizes);
  if (Is(Option::kInfo)) return Ack(out);
  AppendAck(out, option);
  return EnterTransmission(found, info_.wants_block_size);
}

Handshake::Step Handshake::AnswerMetaContext(const ExportInfo& found, std::string* out) {
  if (Is(Option::kListMetaContext)) {
    for (const std::string& name : ListContexts(found.meta_contexts, contexts_.queries)) {
      AppendMetaContext(out, option_.option, 0, name);
    }
    return Ack(out);
  }
  selection_ = SelectContexts(found.meta_contexts, contexts_.queries);
  selection_name_ = wanted_;
  for (const MetaContext& context : selection_) {
    AppendMetaContext(out, option_.option, context.id, context.name);
  }
  return Ack(out);
}

Handshake::Step Handshake::NextOption() {
  field_.clear();
  state_ = State::kOptionHeader;
  return Step::kContinue;
}

Handshake::Step Handshake::Ack(std::string* out) {
  AppendAck(out, option_.option);
  return NextOption();
}

Handshake::Step Handshake::Refuse(std::string* out, OptionReply error, std::string_view message) {
  AppendRefusal(out, option_.option, error, message);
  return NextOption();
}

Handshake::Step Handshake::RefuseExport(std::string* out, const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
      return Refuse(out, OptionReply::kErrShutdown, AsStd(status.message()));
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kResourceExhausted:
      return Refuse(out, OptionReply::kErrPolicy, AsStd(status.message()));
    case absl::StatusCode::kNotFound:
      return Refuse(out, OptionReply::kErrUnknown,
                    absl::StrCat("there is no export ", Quoted(wanted_)));
    default:
      return Refuse(out, OptionReply::kErrUnknown,
                    absl::StrCat("export ", Quoted(wanted_), " cannot be served at present"));
  }
}

Handshake::Step Handshake::AskForExport(std::string name) {
  field_.clear();
  wanted_ = std::move(name);
  state_ = State::kAnswer;
  return Step::kNeedExport;
}

Handshake::Step Handshake::End(Step step, std::string reason) {
  state_ = State::kEnded;
  end_ = step;
  reason_ = std::move(reason);
  return step;
}

absl::Span<const MetaContext> Handshake::SelectionFor(std::string_view name) const {
  if (name != selection_name_) return {};
  return selection_;
}

absl::Status Handshake::SelectionStands(const ExportInfo& exported) const {
  for (const MetaContext& context : SelectionFor(wanted_)) {
    const auto& offered = exported.meta_contexts;
    if (std::find(offered.begin(), offered.end(), context.name) == offered.end()) {
      return absl::InvalidArgumentError(absl::StrCat("metadata context ", Quoted(context.name),
                                                     " is no longer offered: select again"));
    }
  }
  return absl::OkStatus();
}

Handshake::Step Handshake::EnterTransmission(const ExportInfo& exported,
                                             bool block_sizes_requested) {
  negotiated_.requested_name = wanted_;
  negotiated_.exported = exported;
  negotiated_.transmission_flags = TransmissionFlags(exported.traits, structured_);
  negotiated_.structured = structured_;
  negotiated_.block_sizes_requested = block_sizes_requested;
  const absl::Span<const MetaContext> selection = SelectionFor(wanted_);
  negotiated_.meta_contexts.assign(selection.begin(), selection.end());
  return End(Step::kTransmission, "");
}

Negotiated Handshake::TakeNegotiated() {
  CHECK(end_ == Step::kTransmission);
  return std::move(negotiated_);
}

}  // namespace gabion::nbd
