#!/bin/sh
# Makes the certificates of the tests, valid for 100 years. Run in this folder; needs openssl 3.
set -eu
days=36500

authority() { # name, common name
    openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"
    openssl req -x509 -new -key "$1.key" -days $days -subj "/CN=$2" -out "$1.pem" \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign
}

leaf() { # name, authority, subject, kind of key, names, usage
    case $4 in
    ecdsa) openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out "$1.key" ;;
    rsa) openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$1.key" 2>/dev/null ;;
    esac
    openssl req -new -key "$1.key" -subj "$3" -out "$1.csr"
    printf 'basicConstraints=CA:FALSE\nextendedKeyUsage=%s\nsubjectAltName=%s\n' "$6" "$5" >"$1.ext"
    openssl x509 -req -in "$1.csr" -CA "$2.pem" -CAkey "$2.key" -CAcreateserial -days $days \
        -extfile "$1.ext" -out "$1.pem" 2>/dev/null
    rm -f "$1.csr" "$1.ext"
}

authority ca tidegate-test-ca
authority other-ca tidegate-other-ca
leaf server ca /CN=server ecdsa DNS:server.test,DNS:localhost,IP:127.0.0.1,URI:spiffe://test/server serverAuth
leaf server-rsa ca /CN=server-rsa rsa DNS:server.test,DNS:localhost,IP:127.0.0.1 serverAuth
leaf a ca /CN=a ecdsa DNS:a.test serverAuth
leaf wild ca /CN=wild ecdsa DNS:*.wild.test serverAuth
leaf client ca '/C=DE/O=Acme, Inc/CN=client' ecdsa \
    URI:spiffe://test/client,DNS:client.test,IP:10.1.2.3,email:a@client.test clientAuth
leaf stranger other-ca /CN=stranger ecdsa DNS:stranger.test clientAuth,serverAuth
rm -f ./*.srl
