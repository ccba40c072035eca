// Addresses of sockets, for people.
#pragma once

#include <sys/socket.h>

#include <string>

namespace gabion::io {

// "127.0.0.1:10809" or "[::1]:10809".
std::string InternetAddressName(const sockaddr_storage& address);
// Who is at the other end: an internet address, or "unix:uid=0,pid=17".
std::string PeerName(int socket);
// Where a TCP socket is bound.
std::string LocalName(int socket);

}  // namespace gabion::io
