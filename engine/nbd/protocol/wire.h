// The NBD protocol on one page: magics, numbers and layouts, as the protocol document (proto.md of
// the NBD project) gives them. All integers on the wire are big-endian. The structs document
// offsets and sizes; they are never laid over a buffer: codec.h loads and stores the fields.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gabion::nbd {

// ---- handshake
//
//   server: Greeting; client: 32 bits of client flags; then, until EXPORT_NAME, GO or ABORT ends
//   it: client: OptionHeader + payload; server: one or more OptionReplyHeader + payload.

inline constexpr uint64_t kInitPassword = 0x4e42444d41474943;  // "NBDMAGIC"
inline constexpr uint64_t kOptionMagic = 0x49484156454F5054;   // "IHAVEOPT"
inline constexpr uint64_t kOptionReplyMagic = 0x0003e889045565a9;

inline constexpr uint16_t kServerFixedNewstyle = 1 << 0;
inline constexpr uint16_t kServerNoZeroes = 1 << 1;

inline constexpr uint32_t kClientFixedNewstyle = 1 << 0;
inline constexpr uint32_t kClientNoZeroes = 1 << 1;

enum class Option : uint32_t {
  kExportName = 1,
  kAbort = 2,
  kList = 3,
  kPeekExport = 4,  // withdrawn
  kStartTls = 5,
  kInfo = 6,
  kGo = 7,
  kStructuredReply = 8,
  kListMetaContext = 9,
  kSetMetaContext = 10,
};

enum class OptionReply : uint32_t {
  kAck = 1,
  kServer = 2,
  kInfo = 3,
  kMetaContext = 4,
  kErrUnsupported = 0x80000001,
  kErrPolicy = 0x80000002,
  kErrInvalid = 0x80000003,
  kErrPlatform = 0x80000004,
  kErrTlsRequired = 0x80000005,
  kErrUnknown = 0x80000006,
  kErrShutdown = 0x80000007,
  kErrBlockSizeRequired = 0x80000008,
  kErrTooBig = 0x80000009,
};

enum class InfoType : uint16_t {
  kExport = 0,
  kName = 1,
  kDescription = 2,
  kBlockSize = 3,
};

// Names, descriptions, context names and queries, error messages: UTF-8 without NUL, at most this
// many bytes.
inline constexpr size_t kMaxString = 4096;

// The reply to EXPORT_NAME ends with this many zero bytes unless both sides said NO_ZEROES.
inline constexpr size_t kExportNamePadding = 124;

struct [[gnu::packed]] WireGreeting {
  uint64_t init_password;
  uint64_t option_magic;
  uint16_t server_flags;
};
struct [[gnu::packed]] WireOptionHeader {
  uint64_t magic;  // kOptionMagic
  uint32_t option;
  uint32_t length;  // of the payload that follows
};
struct [[gnu::packed]] WireOptionReplyHeader {
  uint64_t magic;  // kOptionReplyMagic
  uint32_t option;
  uint32_t reply;
  uint32_t length;  // of the payload that follows
};
struct [[gnu::packed]] WireInfoExport {
  uint16_t type;
  uint64_t size;
  uint16_t transmission_flags;
};
struct [[gnu::packed]] WireInfoBlockSize {
  uint16_t type;
  uint32_t minimum;
  uint32_t preferred;
  uint32_t maximum_payload;
};
static_assert(sizeof(WireGreeting) == 18);
static_assert(sizeof(WireOptionHeader) == 16);
static_assert(sizeof(WireOptionReplyHeader) == 20);
static_assert(sizeof(WireInfoExport) == 12);
static_assert(sizeof(WireInfoBlockSize) == 14);

// ---- transmission flags, told with the export's size

inline constexpr uint16_t kHasFlags = 1 << 0;
inline constexpr uint16_t kReadOnly = 1 << 1;
inline constexpr uint16_t kSendFlush = 1 << 2;
inline constexpr uint16_t kSendFua = 1 << 3;
inline constexpr uint16_t kRotational = 1 << 4;
inline constexpr uint16_t kSendTrim = 1 << 5;
inline constexpr uint16_t kSendWriteZeroes = 1 << 6;
inline constexpr uint16_t kSendDf = 1 << 7;
inline constexpr uint16_t kCanMultiConn = 1 << 8;
inline constexpr uint16_t kSendCache = 1 << 10;
inline constexpr uint16_t kSendFastZero = 1 << 11;

// ---- transmission: requests

inline constexpr uint32_t kRequestMagic = 0x25609513;

enum class Command : uint16_t {
  kRead = 0,
  kWrite = 1,  // `length` bytes of payload follow the header
  kDisconnect = 2,
  kFlush = 3,
  kTrim = 4,
  kCache = 5,
  kWriteZeroes = 6,
  kBlockStatus = 7,
};

inline constexpr uint16_t kFlagFua = 1 << 0;
inline constexpr uint16_t kFlagNoHole = 1 << 1;
inline constexpr uint16_t kFlagDf = 1 << 2;
inline constexpr uint16_t kFlagReqOne = 1 << 3;
inline constexpr uint16_t kFlagFastZero = 1 << 4;

struct [[gnu::packed]] WireRequest {
  uint32_t magic;  // kRequestMagic
  uint16_t flags;
  uint16_t command;
  uint64_t cookie;
  uint64_t offset;
  uint32_t length;
};
static_assert(sizeof(WireRequest) == 28);

// ---- transmission: replies

inline constexpr uint32_t kSimpleReplyMagic = 0x67446698;
inline constexpr uint32_t kChunkMagic = 0x668e33ef;

inline constexpr uint16_t kChunkDone = 1 << 0;  // the last chunk of this reply

enum class ChunkType : uint16_t {
  kNone = 0,
  kOffsetData = 1,
  kOffsetHole = 2,
  kBlockStatus = 5,
  kError = 0x8001,
  kErrorOffset = 0x8002,
};

enum class ErrorCode : uint32_t {
  kNone = 0,
  kEperm = 1,
  kEio = 5,
  kEnomem = 12,
  kEinval = 22,
  kEnospc = 28,
  kEoverflow = 75,
  kEnotsup = 95,
  kEshutdown = 108,
};

struct [[gnu::packed]] WireSimpleReply {
  uint32_t magic;  // kSimpleReplyMagic
  uint32_t error;
  uint64_t cookie;  // then, for a READ without error, the data
};
struct [[gnu::packed]] WireChunkHeader {
  uint32_t magic;  // kChunkMagic
  uint16_t flags;
  uint16_t type;
  uint64_t cookie;
  uint32_t length;  // of everything that follows
};
struct [[gnu::packed]] WireDataChunk {
  WireChunkHeader header;  // length: 8 + data
  uint64_t offset;         // then the data
};
struct [[gnu::packed]] WireHoleChunk {
  WireChunkHeader header;  // length: 12
  uint64_t offset;
  uint32_t hole_length;
};
struct [[gnu::packed]] WireErrorChunk {
  WireChunkHeader header;  // length: 6 + message (+ 8 for kErrorOffset)
  uint32_t error;
  uint16_t message_length;  // then the message, then (kErrorOffset only) the 64-bit offset
};
struct [[gnu::packed]] WireBlockStatusChunk {
  WireChunkHeader header;  // length: 4 + 8 per descriptor
  uint32_t context_id;     // then the descriptors
};
struct [[gnu::packed]] WireBlockDescriptor {
  uint32_t length;
  uint32_t status;
};
static_assert(sizeof(WireSimpleReply) == 16);
static_assert(sizeof(WireChunkHeader) == 20);
static_assert(sizeof(WireDataChunk) == 28);
static_assert(sizeof(WireHoleChunk) == 32);
static_assert(sizeof(WireErrorChunk) == 26);
static_assert(sizeof(WireBlockStatusChunk) == 24);
static_assert(sizeof(WireBlockDescriptor) == 8);

// What a BLOCK_STATUS chunk may hold at most.
inline constexpr uint32_t kMaxDescriptors = 1 << 20;

}  // namespace gabion::nbd
