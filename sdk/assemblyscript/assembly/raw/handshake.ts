// The interface `handshake` as the canonical ABI flattens it: sessions, publications and times are u64, strings and
// lists an address and a length; `result` is where the answer is put.

@external("tidegate:plugin/handshake@0.1.0", "method")
export declare function method(session: u64, result: usize): void;

@external("tidegate:plugin/handshake@0.1.0", "path")
export declare function path(session: u64, result: usize): void;

@external("tidegate:plugin/handshake@0.1.0", "parameter")
export declare function parameter(session: u64, name: usize, nameLength: usize, result: usize): void;

@external("tidegate:plugin/handshake@0.1.0", "query")
export declare function query(session: u64, name: usize, nameLength: usize, result: usize): void;

@external("tidegate:plugin/handshake@0.1.0", "raw-query")
export declare function rawQuery(session: u64, result: usize): void;

@external("tidegate:plugin/handshake@0.1.0", "header")
export declare function header(session: u64, name: usize, nameLength: usize, result: usize): void;

@external("tidegate:plugin/handshake@0.1.0", "headers")
export declare function headers(session: u64, result: usize): void;

@external("tidegate:plugin/handshake@0.1.0", "cookie")
export declare function cookie(session: u64, name: usize, nameLength: usize, result: usize): void;

@external("tidegate:plugin/handshake@0.1.0", "peer-address")
export declare function peerAddress(session: u64, result: usize): void;

@external("tidegate:plugin/handshake@0.1.0", "client-certificate")
export declare function clientCertificate(session: u64, result: usize): void;

@external("tidegate:plugin/handshake@0.1.0", "certificate-facts")
export declare function certificateFacts(session: u64, result: usize): void;

@external("tidegate:plugin/handshake@0.1.0", "subprotocols")
export declare function subprotocols(session: u64, result: usize): void;

@external("tidegate:plugin/handshake@0.1.0", "select-subprotocol")
export declare function selectSubprotocol(session: u64, name: usize, nameLength: usize, result: usize): void;

@external("tidegate:plugin/handshake@0.1.0", "add-header")
export declare function addHeader(
  session: u64, name: usize, nameLength: usize, value: usize, valueLength: usize, result: usize,
): void;

@external("tidegate:plugin/handshake@0.1.0", "set-body")
export declare function setBody(
  session: u64, contentType: usize, contentTypeLength: usize, body: usize, bodyLength: usize,
): void;
