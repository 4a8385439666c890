import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.security.KeyFactory;
import java.security.PrivateKey;
import java.security.Signature;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import java.security.spec.MGF1ParameterSpec;
import java.security.spec.PKCS8EncodedKeySpec;
import java.security.spec.PSSParameterSpec;
import java.util.Base64;

/**
 * Signs and verifies firmware images with the providers of the Java platform, in one start.
 *
 * Each line of standard input is one question; its fields are separated by tabs, octets are base64:
 *   verify  ID  ecdsa or salt length  CERTIFICATE  IMAGE  SIGNATURE
 *   sign    ID  ecdsa or salt length  PKCS8        IMAGE
 * Each line of standard output is one answer: ID, and accepted, refused or the signature.
 */
public final class VerifyFirmware {
    private VerifyFirmware() {}

    public static void main(String[] arguments) throws Exception {
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        PrintStream output = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            String[] fields = line.split("\t", -1);
            Signature signature = algorithm(fields[2]);
            byte[] image = Base64.getDecoder().decode(fields[4]);
            String answer;
            if (fields[0].equals("verify")) {
                byte[] der = Base64.getDecoder().decode(fields[3]);
                X509Certificate certificate = (X509Certificate)
                        CertificateFactory.getInstance("X.509").generateCertificate(new ByteArrayInputStream(der));
                signature.initVerify(certificate.getPublicKey());
                signature.update(image);
                answer = signature.verify(Base64.getDecoder().decode(fields[5])) ? "accepted" : "refused";
            } else {
                PKCS8EncodedKeySpec encoded = new PKCS8EncodedKeySpec(Base64.getDecoder().decode(fields[3]));
                String family = fields[2].equals("ecdsa") ? "EC" : "RSA";
                PrivateKey key = KeyFactory.getInstance(family).generatePrivate(encoded);
                signature.initSign(key);
                signature.update(image);
                answer = Base64.getEncoder().encodeToString(signature.sign());
            }
            output.println(fields[1] + "\t" + answer);
        }
    }

    private static Signature algorithm(String name) throws Exception {
        if (name.equals("ecdsa")) {
            return Signature.getInstance("SHA256withECDSA");
        }
        Signature signature = Signature.getInstance("RSASSA-PSS");
        int salt = Integer.parseInt(name);
        signature.setParameter(new PSSParameterSpec("SHA-256", "MGF1", MGF1ParameterSpec.SHA256, salt, 1));
        return signature;
    }
}
