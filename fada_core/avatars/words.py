"""Words and sentence templates of the languages other than English."""

Words = dict[str, tuple[str, ...]]


def _language(voice: str, who: str, did: str, what: str, where: str, free: str) -> tuple[str, Words, tuple[str, ...]]:
    """(voice of espeak-ng, words by slot, templates). All arguments but `voice` are lists with | between the items."""
    words = {k: tuple(v.split("|")) for k, v in (("who", who), ("did", did), ("what", what), ("where", where))}
    return voice, words, ("{who} {did} {what} {where}.", "{who} {did} {what}.", *free.split("|"))


#: Language -> (voice of espeak-ng, words, templates).
FOREIGN = {
    "de": _language(
        "de",
        "meine Nachbarin|der Lehrer|ein junger Maler|die alte Bäuerin|unser Kapitän|jeder Besucher|Peter|Maria"
        "|Jürgen",
        "kaufte|fand|vergaß|öffnete|bemalte|verschenkte|suchte|fotografierte|brauchte|verkaufte",
        "einen bunten Schirm|das kaputte Fenster|fünf warme Decken|ein Stück Apfelkuchen|die Zeitung|zwei gelbe Räder"
        "|einen Topf Suppe|das fehlende Buch|drei kleine Hasen|ein Pfund Pflaumen|schöne Möbel",
        "am Fluss|in der Küche|hinter dem Museum|auf dem Heimweg|am Bahnhof|unter dem Tisch|vor der Bank|im Frühling",
        "Guten Morgen, wie geht es Ihnen heute?|Ich glaube, {who} {did} {what}.|Warum ist die Musik so laut?"
        "|Wir könnten morgen ans Meer fahren.|Bitte hören Sie mir einen Augenblick zu."
        "|Das ist überhaupt kein Problem.",
    ),
    "fr": _language(
        "fr",
        "ma voisine|le professeur|un jeune peintre|la vieille dame|notre capitaine|Pierre|Marie|mon frère"
        "|le boulanger",
        "achète|trouve|oublie|ouvre|regarde|prépare|cherche|photographie|apporte|mesure",
        "un parapluie violet|la fenêtre cassée|cinq couvertures|un morceau de gâteau|le journal du matin"
        "|deux vélos jaunes"
        "|une soupe aux champignons|le livre perdu|trois petits lapins|une bouteille vide|du bon pain",
        "au bord du fleuve|dans la cuisine|derrière le musée|sur le chemin|au marché|sous la table"
        "|devant la banque|en juin",
        "Bonjour, comment allez-vous aujourd'hui?|Je pense que {who} {did} {what}."
        "|Pourquoi la musique est-elle si forte?"
        "|Nous pourrions partir à la plage.|Un peu plus de beurre, s'il vous plaît."
        "|Vous avez vu une belle voiture bleue.",
    ),
    "es": _language(
        "es",
        "mi vecina|el profesor|un joven pintor|la abuela|nuestro capitán|Pablo|María|mi hermano|el panadero",
        "compra|encuentra|olvida|abre|mira|prepara|busca|fotografía|trae|vende",
        "un paraguas morado|la ventana rota|cinco mantas|un trozo de pastel|el periódico|dos bicicletas"
        "|una sopa caliente"
        "|el libro perdido|tres conejos|una botella vacía|mucho pan",
        "junto al río|en la cocina|detrás del museo|de camino a casa|en el mercado|bajo la mesa|frente al banco"
        "|en verano",
        "Buenos días, ¿cómo está usted?|Creo que {who} {did} {what}.|¿Por qué está tan alta la música?"
        "|Podríamos ir a la playa mañana.|Por favor, escúcheme un momento.|No hay ningún problema, de verdad.",
    ),
    "it": _language(
        "it",
        "la mia vicina|il professore|un giovane pittore|la nonna|il capitano|Paolo|Maria|mio fratello|il fornaio",
        "compra|trova|dimentica|apre|guarda|prepara|cerca|fotografa|porta|vende",
        "un ombrello viola|la finestra rotta|cinque coperte|un pezzo di torta|il giornale|due biciclette"
        "|una zuppa calda"
        "|il libro perduto|tre conigli|una bottiglia vuota|molto pane",
        "lungo il fiume|in cucina|dietro il museo|verso casa|al mercato|sotto il tavolo|davanti alla banca|in giugno",
        "Buongiorno, come sta oggi?|Penso che sia una bella idea.|Perché la musica è così forte?"
        "|Domani possiamo andare al mare.|Per favore, mi ascolti un momento.|Non c'è nessun problema.",
    ),
    "pt": _language(
        "pt-br",
        "minha vizinha|o professor|um jovem pintor|a avó|o capitão|Pedro|Maria|meu irmão|o padeiro",
        "compra|encontra|esquece|abre|prepara|procura|fotografa|traz|vende",
        "um guarda-chuva|a janela quebrada|cinco cobertores|um pedaço de bolo|o jornal|duas bicicletas"
        "|uma sopa quente"
        "|o livro perdido|três coelhos|uma garrafa vazia|muito pão",
        "perto do rio|na cozinha|atrás do museu|a caminho de casa|no mercado|debaixo da mesa|em frente ao banco"
        "|no verão",
        "Bom dia, como vai você?|Acho que {who} {did} {what}.|Por que a música está tão alta?|Amanhã vamos à praia."
        "|Por favor, escute um momento.|Não tem problema nenhum.",
    ),
    "nl": _language(
        "nl",
        "mijn buurvrouw|de leraar|een jonge schilder|de oude boer|onze kapitein|Pieter|Maria|mijn broer|de bakker",
        "koopt|vindt|vergeet|opent|bekijkt|zoekt|fotografeert|brengt|verkoopt",
        "een paarse paraplu|het kapotte raam|vijf dekens|een stuk appeltaart|de krant|twee gele fietsen|een pan soep"
        "|het verloren boek|drie konijnen|een lege fles",
        "bij de rivier|in de keuken|achter het museum|op weg naar huis|op de markt|onder de tafel|voor de bank",
        "Goedemorgen, hoe gaat het met u?|Ik denk dat het een goed idee is.|Waarom is de muziek zo luid?"
        "|Morgen kunnen we naar het strand gaan.|Luister alstublieft even naar mij.",
    ),
    "sv": _language(
        "sv",
        "min granne|läraren|en ung målare|bonden|vår kapten|Per|Maria|min bror|bagaren",
        "köpte|hittade|glömde|öppnade|målade|sökte|fotograferade|behövde|sålde",
        "ett lila paraply|det trasiga fönstret|fem varma filtar|en bit äppelpaj|tidningen|två gula cyklar"
        "|en gryta soppa"
        "|den saknade boken|tre små kaniner|en tom flaska",
        "vid floden|i köket|bakom museet|på vägen hem|på torget|under bordet|framför banken|på sommaren",
        "God morgon, hur mår du idag?|Jag tycker att det är en bra idé.|Varför är musiken så hög?"
        "|Vi kan åka till havet i morgon.|Var snäll och lyssna en stund.",
    ),
    "pl": _language(
        "pl",
        "moja sąsiadka|nauczyciel|młody malarz|stary rolnik|nasz kapitan|Piotr|Maria|mój brat|piekarz",
        "kupuje|znajduje|otwiera|ogląda|maluje|przynosi|fotografuje|sprzedaje",
        "fioletowy parasol|pięć ciepłych koców|kawałek ciasta|poranną gazetę|dwa żółte rowery|garnek zupy"
        "|starą książkę"
        "|trzy małe króliki|pustą butelkę",
        "nad rzeką|w kuchni|za muzeum|w drodze do domu|na rynku|pod stołem|przed bankiem|latem",
        "Dzień dobry, jak się pan dzisiaj czuje?|Myślę, że to dobry pomysł.|Dlaczego muzyka jest taka głośna?"
        "|Jutro możemy pojechać nad morze.|Proszę mnie chwilę posłuchać.",
    ),
    "tr": _language(
        "tr",
        "komşum|öğretmen|genç ressam|yaşlı çiftçi|kaptanımız|Mehmet|Ayşe|kardeşim|fırıncı",
        "bugün|dün|her sabah|yine|belki|sonunda",
        "mor bir şemsiye|kırık pencere|beş battaniye|bir dilim pasta|gazete|iki sarı bisiklet|sıcak çorba"
        "|boş bir şişe",
        "aldı|buldu|unuttu|gördü|istedi|getirdi|sattı",
        "Günaydın, bugün nasılsınız?|Bence bu güzel bir fikir.|Müzik neden bu kadar yüksek?|Yarın denize gidebiliriz."
        "|Lütfen beni biraz dinleyin.",
    ),
    "ru": _language(
        "ru",
        "моя соседка|учитель|молодой художник|старый рыбак|наш капитан|Пётр|Мария|мой брат|пекарь",
        "покупает|находит|открывает|рисует|приносит|фотографирует|продаёт|ищет",
        "фиолетовый зонт|пять тёплых одеял|кусок пирога|газету|два велосипеда|горячий суп|старую книгу"
        "|пустую бутылку",
        "у реки|на кухне|за музеем|по пути домой|на рынке|под столом|перед банком|летом",
        "Доброе утро, как ваши дела?|Мне кажется, это хорошая мысль.|Почему музыка такая громкая?"
        "|Завтра мы можем поехать на море.|Пожалуйста, послушайте меня минуту.",
    ),
    "hi": _language(
        "hi",
        "मेरा पड़ोसी|अध्यापक|एक युवा चित्रकार|बूढ़ा किसान|मेरा भाई|राम|बबलू",
        "आज|कल|रोज़|फिर से|शायद",
        "एक नीला छाता|पुरानी किताब|पाँच कंबल|गरम सूप|अख़बार|दो साइकिल|मीठे आम|खाली बोतल",
        "ख़रीदता है|देखता है|लाता है|बेचता है|माँगता है|भूलता है",
        "नमस्ते, आप कैसे हैं?|मुझे लगता है यह अच्छा विचार है।|संगीत इतना तेज़ क्यों है?|कल हम बाज़ार जा सकते हैं।",
    ),
    "id": _language(
        "id",
        "tetangga saya|guru itu|pelukis muda|petani tua|kapten kami|Budi|Maria|adik saya|tukang roti",
        "membeli|menemukan|melupakan|membuka|melihat|mencari|membawa|menjual",
        "payung ungu|jendela rusak|lima selimut|sepotong kue|koran pagi|dua sepeda|sup panas|buku lama|botol kosong",
        "di tepi sungai|di dapur|di belakang museum|di jalan pulang|di pasar|di bawah meja|di depan bank",
        "Selamat pagi, apa kabar?|Saya pikir itu ide yang bagus.|Mengapa musiknya begitu keras?"
        "|Besok kita bisa pergi ke pantai.",
    ),
}  # fmt: skip
