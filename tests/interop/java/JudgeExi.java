import com.siemens.ct.exi.core.EXIFactory;
import com.siemens.ct.exi.core.grammars.Grammars;
import com.siemens.ct.exi.core.helpers.DefaultEXIFactory;
import com.siemens.ct.exi.main.api.sax.EXIResult;
import com.siemens.ct.exi.main.api.sax.EXISource;
import com.siemens.ct.exi.main.cmd.EXICodec;
import com.siemens.ct.exi.main.generatedgrammar.ISO15118_20_V2G_CI_CommonMessages;
import com.siemens.ct.exi.main.generatedgrammar.ISO15118_2Grammar;
import com.siemens.ct.exi.main.generatedgrammar.XMLDSIG_Core_Schema_Grammar;
import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.io.StringWriter;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.HashMap;
import java.util.Map;
import javax.xml.parsers.SAXParserFactory;
import javax.xml.transform.TransformerFactory;
import javax.xml.transform.sax.SAXSource;
import javax.xml.transform.stream.StreamResult;
import org.xml.sax.InputSource;
import org.xml.sax.XMLReader;

/**
 * Encodes and decodes with the EXI codec of PyPI's iso15118, one question for each line of the input.
 *
 * A question is operation, message set (or namespace) and base64, with tabs between them; the answer is "ok" and
 * base64, or "refused" and the reason. encode, decode and their -fragment forms take and give XML; encode-json and
 * decode-json go through the entry points that iso15118 itself calls. The options of the stream are the ones of
 * AbstractEXICodec, whose own entry points cannot decode a fragment of ISO 15118-2 or -20.
 */
public final class JudgeExi {
    private static final Map<String, Grammars> GRAMMARS = new HashMap<>();
    private static EXICodec codec;

    public static void main(String[] arguments) throws Exception {
        PrintStream answers = System.out;
        System.setOut(System.err); // The codec prints what it does not like.
        BufferedReader questions = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
        for (String line = questions.readLine(); line != null; line = questions.readLine()) {
            String[] parts = line.split("\t", -1);
            String answer;
            try {
                byte[] result = answer(parts[0], parts[1], Base64.getDecoder().decode(parts[2]));
                answer = "ok\t" + Base64.getEncoder().encodeToString(result);
            } catch (Exception | StackOverflowError error) {
                answer = "refused\t" + String.valueOf(error).replaceAll("\\s+", " ");
            }
            answers.println(answer);
            answers.flush();
        }
    }

    private static byte[] answer(String operation, String set, byte[] input) throws Exception {
        switch (operation) {
            case "encode":
                return encode(factory(set, false), input);
            case "encode-fragment":
                return encode(factory(set, true), input);
            case "decode":
                return decode(factory(set, false), input);
            case "decode-fragment":
                return decode(factory(set, true), input);
            case "encode-json":
                byte[] exi = codec().encode(new String(input, StandardCharsets.UTF_8), set);
                return given(exi, codec().get_last_encoding_error());
            case "decode-json":
                String json = codec().decode(input, set);
                return given(json == null ? null : json.getBytes(StandardCharsets.UTF_8), codec().get_last_decoding_error());
            default:
                throw new IllegalArgumentException("unknown operation " + operation);
        }
    }

    private static byte[] given(byte[] result, String error) {
        if (result == null) {
            throw new IllegalArgumentException(error);
        }
        return result;
    }

    private static EXICodec codec() {
        if (codec == null) {
            codec = new EXICodec();
        }
        return codec;
    }

    private static EXIFactory factory(String set, boolean fragment) {
        EXIFactory factory = DefaultEXIFactory.newInstance();
        factory.setValueMaxLength(0);
        factory.setValuePartitionCapacity(0);
        factory.setMaximumNumberOfBuiltInElementGrammars(0);
        factory.setMaximumNumberOfBuiltInProductions(0);
        factory.setGrammars(GRAMMARS.computeIfAbsent(set, JudgeExi::grammars));
        factory.setFragment(fragment);
        return factory;
    }

    private static Grammars grammars(String set) {
        switch (set) {
            case "iso15118-2":
                return new ISO15118_2Grammar();
            case "iso15118-20":
                return new ISO15118_20_V2G_CI_CommonMessages();
            case "xmldsig":
                return new XMLDSIG_Core_Schema_Grammar();
            default:
                throw new IllegalArgumentException("unknown message set " + set);
        }
    }

    private static byte[] encode(EXIFactory factory, byte[] xml) throws Exception {
        ByteArrayOutputStream exi = new ByteArrayOutputStream();
        EXIResult result = new EXIResult(factory);
        result.setOutputStream(exi);
        SAXParserFactory parsers = SAXParserFactory.newInstance();
        parsers.setNamespaceAware(true);
        XMLReader reader = parsers.newSAXParser().getXMLReader();
        reader.setContentHandler(result.getHandler());
        reader.parse(new InputSource(new ByteArrayInputStream(xml)));
        return exi.toByteArray();
    }

    private static byte[] decode(EXIFactory factory, byte[] exi) throws Exception {
        StringWriter xml = new StringWriter();
        SAXSource source = new SAXSource(new InputSource(new ByteArrayInputStream(exi)));
        source.setXMLReader(new EXISource(factory).getXMLReader());
        TransformerFactory.newInstance().newTransformer().transform(source, new StreamResult(xml));
        return xml.toString().getBytes(StandardCharsets.UTF_8);
    }
}
