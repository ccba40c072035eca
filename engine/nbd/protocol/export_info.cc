#include "engine/nbd/protocol/export_info.h"

#include "engine/nbd/protocol/wire.h"

namespace gabion::nbd {

uint16_t TransmissionFlags(const ExportTraits& traits, bool structured) {
  uint16_t flags = kHasFlags | kSendFlush;
  if (traits.can_fua) flags |= kSendFua;
  if (traits.rotational) flags |= kRotational;
  if (traits.multi_conn) flags |= kCanMultiConn;
  if (traits.can_cache) flags |= kSendCache;
  if (structured) flags |= kSendDf;
  if (traits.read_only) return flags | kReadOnly;
  if (traits.can_trim) flags |= kSendTrim;
  if (traits.can_zero) flags |= kSendWriteZeroes;
  if (traits.can_zero && traits.can_fast_zero) flags |= kSendFastZero;
  return flags;
}

}  // namespace gabion::nbd
