import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.cert.CertPathValidator;
import java.security.cert.CertPathValidatorException;
import java.security.cert.CertStore;
import java.security.cert.CertificateFactory;
import java.security.cert.CollectionCertStoreParameters;
import java.security.cert.PKIXParameters;
import java.security.cert.PKIXRevocationChecker;
import java.security.cert.TrustAnchor;
import java.security.cert.X509CRL;
import java.security.cert.X509CertSelector;
import java.security.cert.X509Certificate;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Collection;
import java.util.Date;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;

/**
 * Judges many certification paths and revocation lists with the PKIX validator of the Java platform, in one start.
 *
 * Each line of standard input is one question; its fields are separated by tabs, lists by commas, DER is base64:
 *   path  ID  MILLISECONDS  off|require  EKU-OID or -  LEAF,ISSUER,…  ROOT  CRL,… or -  CERTIFICATE,… or -
 *         (the last are certificates that lie beside the chain: issuers of lists)
 *   crl   ID  CRL  ISSUER
 *   file  ID  CONTENT  NUMBER: whether so many certificates are read from a file
 * Each line of standard output is one answer: ID, accepted or refused, and the reason.
 */
public final class ValidateChains {
    private static final CertificateFactory FACTORY = factory();

    private ValidateChains() {}

    public static void main(String[] arguments) throws Exception {
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        PrintStream output = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            String[] fields = line.split("\t", -1);
            String verdict;
            try {
                if (fields[0].equals("path")) {
                    verdict = judgePath(fields);
                } else if (fields[0].equals("file")) {
                    verdict = judgeFile(fields);
                } else {
                    verdict = judgeCrl(fields);
                }
            } catch (CertPathValidatorException refusal) {
                verdict = "refused\t" + refusal.getReason() + " at " + refusal.getIndex() + ": " + refusal.getMessage();
            } catch (GeneralSecurityException refusal) {
                verdict = "refused\t" + refusal.getClass().getSimpleName() + ": " + refusal.getMessage();
            }
            output.println(fields[1] + "\t" + verdict.replace('\n', ' '));
        }
    }

    private static String judgeFile(String[] fields) throws Exception {
        ByteArrayInputStream content = new ByteArrayInputStream(decode(fields[2]).get(0));
        int count = FACTORY.generateCertificates(content).size();
        return (count == Integer.parseInt(fields[3]) ? "accepted\t" : "refused\t") + count + " certificates";
    }

    private static String judgePath(String[] fields) throws Exception {
        List<X509Certificate> path = new ArrayList<>();
        for (byte[] der : decode(fields[5])) {
            path.add(certificate(der));
        }
        X509Certificate root = certificate(decode(fields[6]).get(0));
        PKIXParameters parameters = new PKIXParameters(Set.of(new TrustAnchor(root, null)));
        parameters.setDate(new Date(Long.parseLong(fields[2])));
        parameters.setRevocationEnabled(false);
        if (!fields[4].equals("-")) {
            X509CertSelector target = new X509CertSelector();
            target.setExtendedKeyUsage(Set.of(fields[4]));
            parameters.setTargetCertConstraints(target);
        }
        CertPathValidator validator = CertPathValidator.getInstance("PKIX");
        if (fields[3].equals("require")) {
            Collection<Object> store = new ArrayList<>();
            for (byte[] der : decode(fields[7])) {
                store.add(crl(der));
            }
            for (byte[] der : decode(fields[8])) {
                store.add(certificate(der));
            }
            parameters.addCertStore(CertStore.getInstance("Collection", new CollectionCertStoreParameters(store)));
            PKIXRevocationChecker checker = (PKIXRevocationChecker) validator.getRevocationChecker();
            // Without these a certificate that names an OCSP responder would make the validator open a connection.
            checker.setOptions(
                EnumSet.of(PKIXRevocationChecker.Option.PREFER_CRLS, PKIXRevocationChecker.Option.NO_FALLBACK));
            parameters.addCertPathChecker(checker);
        }
        validator.validate(FACTORY.generateCertPath(path), parameters);
        return "accepted\t";
    }

    private static String judgeCrl(String[] fields) throws Exception {
        crl(decode(fields[2]).get(0)).verify(certificate(decode(fields[3]).get(0)).getPublicKey());
        return "accepted\t";
    }

    private static List<byte[]> decode(String field) {
        List<byte[]> values = new ArrayList<>();
        if (!field.equals("-")) {
            for (String part : field.split(",")) {
                values.add(Base64.getDecoder().decode(part));
            }
        }
        return values;
    }

    private static X509Certificate certificate(byte[] der) throws GeneralSecurityException {
        return (X509Certificate) FACTORY.generateCertificate(new ByteArrayInputStream(der));
    }

    private static X509CRL crl(byte[] der) throws GeneralSecurityException {
        return (X509CRL) FACTORY.generateCRL(new ByteArrayInputStream(der));
    }

    private static CertificateFactory factory() {
        try {
            return CertificateFactory.getInstance("X.509");
        } catch (GeneralSecurityException impossible) {
            throw new IllegalStateException(impossible);
        }
    }
}
