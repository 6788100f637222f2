"""`ssl` for what imports it: TLS is the host's, for outbound HTTP, and there is none for sockets."""

import enum
import socket

HAS_SNI = HAS_ALPN = HAS_ECDH = HAS_TLSv1_2 = HAS_TLSv1_3 = True
HAS_NEVER_CHECK_COMMON_NAME = True
HAS_SSLv2 = HAS_SSLv3 = HAS_TLSv1 = HAS_TLSv1_1 = HAS_NPN = HAS_PSK = False
OPENSSL_VERSION, OPENSSL_VERSION_NUMBER, OPENSSL_VERSION_INFO = "OpenSSL 3.0.0 (none: TLS is the host's)", 0x30000000, (3, 0, 0, 0, 0)
OP_ALL = OP_NO_SSLv2 = OP_NO_SSLv3 = OP_NO_COMPRESSION = OP_NO_TICKET = OP_NO_TLSv1 = OP_NO_TLSv1_1 = 0
OP_NO_TLSv1_2 = OP_NO_TLSv1_3 = OP_NO_RENEGOTIATION = OP_LEGACY_SERVER_CONNECT = OP_IGNORE_UNEXPECTED_EOF = 0
VERIFY_DEFAULT, VERIFY_X509_STRICT, VERIFY_X509_PARTIAL_CHAIN, VERIFY_X509_TRUSTED_FIRST = 0, 0x20, 0x80000, 0x8000
CHANNEL_BINDING_TYPES = []


class VerifyMode(enum.IntEnum):
    CERT_NONE, CERT_OPTIONAL, CERT_REQUIRED = 0, 1, 2


class TLSVersion(enum.IntEnum):
    MINIMUM_SUPPORTED, SSLv3, TLSv1, TLSv1_1, TLSv1_2, TLSv1_3, MAXIMUM_SUPPORTED = -2, 768, 769, 770, 771, 772, -1


class Purpose(enum.Enum):
    SERVER_AUTH, CLIENT_AUTH = "1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"


class _SSLMethod(enum.IntEnum):
    PROTOCOL_TLS, PROTOCOL_TLSv1, PROTOCOL_TLSv1_1, PROTOCOL_TLSv1_2, PROTOCOL_TLS_CLIENT, PROTOCOL_TLS_SERVER = 2, 3, 4, 5, 16, 17


Options = VerifyFlags = int
globals().update(VerifyMode.__members__)
globals().update(_SSLMethod.__members__)
PROTOCOL_SSLv23 = _SSLMethod.PROTOCOL_TLS


class SSLError(OSError):
    """TLS failed."""

    library = reason = None


class SSLZeroReturnError(SSLError):
    pass


class SSLWantReadError(SSLError):
    pass


class SSLWantWriteError(SSLError):
    pass


class SSLSyscallError(SSLError):
    pass


class SSLEOFError(SSLError):
    pass


class SSLCertVerificationError(SSLError, ValueError):
    """The other side's certificate is not trusted."""

    verify_code, verify_message = 0, ""


CertificateError = SSLCertVerificationError


class SSLSocket(socket.socket):
    """Of which there is none."""


class SSLObject:
    """Of which there is none."""


class MemoryBIO:
    def __init__(self):
        raise _no_tls()


class SSLSession:
    """Of which there is none."""


class SSLContext:
    """Settings. The host has its own: these only show whether others are wanted."""

    def __init__(self, protocol=_SSLMethod.PROTOCOL_TLS_CLIENT):
        self.protocol = protocol
        self.check_hostname = protocol == _SSLMethod.PROTOCOL_TLS_CLIENT
        self.verify_mode = VerifyMode.CERT_REQUIRED if self.check_hostname else VerifyMode.CERT_NONE
        self.options = self.verify_flags = 0
        self.minimum_version, self.maximum_version = TLSVersion.TLSv1_2, TLSVersion.MAXIMUM_SUPPORTED
        self.post_handshake_auth = self.hostname_checks_common_name = False
        self.keylog_filename = None
        self._has_certificate = False

    @property
    def is_special(self):
        """Whether the host's TLS would do something else."""
        return self._has_certificate or self.verify_mode == VerifyMode.CERT_NONE

    def load_cert_chain(self, certfile, keyfile=None, password=None):
        self._has_certificate = True

    def load_verify_locations(self, cafile=None, capath=None, cadata=None):
        """Which authorities are trusted says the host: SSL_CERT_FILE."""

    def load_default_certs(self, purpose=Purpose.SERVER_AUTH):
        """The host has its own."""

    def set_default_verify_paths(self):
        """The host has its own."""

    def set_ciphers(self, ciphers):
        """The host has its own."""

    def set_alpn_protocols(self, protocols):
        """The host has its own."""

    def cert_store_stats(self):
        return {"x509": 0, "crl": 0, "x509_ca": 0}

    def get_ca_certs(self, binary_form=False):
        return []

    def wrap_socket(self, *arguments, **keywords):
        raise _no_tls()

    def wrap_bio(self, *arguments, **keywords):
        raise _no_tls()


def _no_tls():
    return SSLError("no TLS for sockets in WebAssembly: expected HTTP (the host does its TLS), or a connection without TLS")


def create_default_context(purpose=Purpose.SERVER_AUTH, *, cafile=None, capath=None, cadata=None):
    return SSLContext(_SSLMethod.PROTOCOL_TLS_CLIENT if purpose is Purpose.SERVER_AUTH else _SSLMethod.PROTOCOL_TLS_SERVER)


def _create_unverified_context(*arguments, **keywords):
    context = SSLContext()
    context.check_hostname, context.verify_mode = False, VerifyMode.CERT_NONE
    return context


_create_default_https_context = create_default_context
_create_stdlib_context = _create_unverified_context


def wrap_socket(*arguments, **keywords):
    raise _no_tls()


def get_default_verify_paths():
    raise _no_tls()


def match_hostname(certificate, hostname):
    raise _no_tls()


def get_server_certificate(address, *arguments, **keywords):
    raise _no_tls()


def RAND_bytes(count):
    import os

    return os.urandom(count)


def cert_time_to_seconds(cert_time):
    raise _no_tls()


def DER_cert_to_PEM_cert(certificate):
    import base64

    lines = base64.encodebytes(certificate).decode("ascii").split()
    text = "".join(lines)
    wrapped = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "\n".join(["-----BEGIN CERTIFICATE-----", *wrapped, "-----END CERTIFICATE-----", ""])
