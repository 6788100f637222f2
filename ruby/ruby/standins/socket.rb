# frozen_string_literal: true

# What the library and gems need of sockets to be loaded: ipaddr, net/http. To
# open one is an error.
class SocketError < StandardError; end

class BasicSocket < IO
  NONE = "there are no sockets in WebAssembly"
  private_constant :NONE

  class << self
    def new(*, **) = raise(SocketError, NONE)
    alias open new
    alias for_fd new
  end
end

class IPSocket < BasicSocket
  def self.getaddress(*) = raise(SocketError, NONE)
end

class TCPSocket < IPSocket; end
class TCPServer < TCPSocket; end
class UDPSocket < IPSocket; end
class UNIXSocket < BasicSocket; end
class UNIXServer < UNIXSocket; end

class Socket < BasicSocket
  # As Linux has them.
  module Constants
    AF_UNSPEC = PF_UNSPEC = 0
    AF_UNIX = PF_UNIX = 1
    AF_INET = PF_INET = 2
    AF_INET6 = PF_INET6 = 10
    SOCK_STREAM = 1
    SOCK_DGRAM = 2
    IPPROTO_TCP = 6
    TCP_NODELAY = 1
    SOL_SOCKET = 1
    SO_REUSEADDR = 2
    SO_KEEPALIVE = 9
    SOMAXCONN = 4096
    NI_NUMERICHOST = 1
  end
  include Constants
  Constants.constants.each { |name| const_set(name, Constants.const_get(name)) unless const_defined?(name, false) }

  class ResolutionError < SocketError; end

  class << self
    def gethostname = "localhost"
    def tcp(*, **) = raise(SocketError, NONE)
    alias unix tcp
    alias getaddrinfo tcp
    alias udp_server_sockets tcp
    alias tcp_server_sockets tcp
  end
end

class Addrinfo
  def self.tcp(*) = raise(SocketError, "there are no sockets in WebAssembly")
  singleton_class.alias_method :udp, :tcp
  singleton_class.alias_method :ip, :tcp
  singleton_class.alias_method :getaddrinfo, :tcp
end
