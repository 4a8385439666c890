import java.io.FileInputStream;
import java.security.cert.CertPath;
import java.security.cert.CertPathValidator;
import java.security.cert.CertPathValidatorException;
import java.security.cert.CertificateFactory;
import java.security.cert.PKIXParameters;
import java.security.cert.PKIXRevocationChecker;
import java.security.cert.TrustAnchor;
import java.security.cert.X509Certificate;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;

/**
 * Validates a chain with the platform's PKIX validator, asking the OCSP responder that each certificate names.
 *
 * Arguments: root, then leaf, then what is between. Prints GOOD, or REVOKED, or why not.
 */
public final class CheckByOcsp {
    public static void main(String[] arguments) throws Exception {
        CertificateFactory factory = CertificateFactory.getInstance("X.509");
        X509Certificate[] found = new X509Certificate[arguments.length];
        for (int i = 0; i < arguments.length; i++) {
            try (FileInputStream stream = new FileInputStream(arguments[i])) {
                found[i] = (X509Certificate) factory.generateCertificate(stream);
            }
        }
        CertPath path = factory.generateCertPath(List.of(found).subList(1, found.length));
        PKIXParameters parameters = new PKIXParameters(Set.of(new TrustAnchor(found[0], null)));
        parameters.setRevocationEnabled(true);
        CertPathValidator validator = CertPathValidator.getInstance("PKIX");
        PKIXRevocationChecker checker = (PKIXRevocationChecker) validator.getRevocationChecker();
        checker.setOptions(EnumSet.of(PKIXRevocationChecker.Option.NO_FALLBACK));
        parameters.addCertPathChecker(checker);
        try {
            validator.validate(path, parameters);
            System.out.println("GOOD");
        } catch (CertPathValidatorException error) {
            boolean revoked = error.getReason() == CertPathValidatorException.BasicReason.REVOKED;
            System.out.println(revoked ? "REVOKED" : "REFUSED " + error.getMessage());
        }
    }
}
