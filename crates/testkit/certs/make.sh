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

dated() { # name, authority, begin, end
    openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out "$1.key"
    openssl req -new -key "$1.key" -subj "/CN=$1" -out "$1.csr"
    openssl ca -batch -notext -config db/ca.cnf -cert "$2.pem" -keyfile "$2.key" \
        -startdate "$3" -enddate "$4" -in "$1.csr" -out "$1.pem" 2>/dev/null
    rm -f "$1.csr"
}

# An authority's own records, for dates of choice and a revocation list.
mkdir -p db
: >db/index.txt
echo 1000 >db/serial
echo 01 >db/crlnumber
cat >db/ca.cnf <<END
[ca]
default_ca = ca
[ca]
database = db/index.txt
serial = db/serial
crlnumber = db/crlnumber
new_certs_dir = db
default_md = sha256
default_crl_days = $days
unique_subject = no
policy = policy
x509_extensions = leaf
crl_extensions = crl
[policy]
commonName = supplied
[leaf]
basicConstraints = CA:FALSE
extendedKeyUsage = serverAuth
subjectAltName = DNS:server.test
[crl]
authorityKeyIdentifier = keyid
END
dated expired ca 20200101000000Z 20200201000000Z
dated early ca 20990101000000Z 20990201000000Z
dated revoked ca 20200101000000Z 20990201000000Z
openssl ca -config db/ca.cnf -cert ca.pem -keyfile ca.key -revoke revoked.pem 2>/dev/null
openssl ca -config db/ca.cnf -cert ca.pem -keyfile ca.key -gencrl -out ca.crl 2>/dev/null
# As openssl writes it unless told otherwise: version 1.
grep -v '^crlnumber\|^crl_extensions' db/ca.cnf >db/plain.cnf
openssl ca -config db/plain.cnf -cert ca.pem -keyfile ca.key -gencrl -out plain.crl 2>/dev/null

# A leaf that signed itself, and one with an authority between it and the root.
openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out self.key
openssl req -x509 -new -key self.key -days $days -subj /CN=self -out self.pem \
    -addext basicConstraints=critical,CA:FALSE -addext subjectAltName=DNS:server.test
openssl ecparam -name prime256v1 -genkey -noout -out between.key
openssl req -new -key between.key -subj /CN=between -out between.csr
printf 'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n' >between.ext
openssl x509 -req -in between.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days $days \
    -extfile between.ext -out between.pem 2>/dev/null
leaf chained between /CN=chained ecdsa DNS:server.test serverAuth
cat between.pem >>chained.pem
rm -rf db between.csr between.ext between.key
rm -f ./*.srl
