// ECP5's block RAM and multiplier, of which Yosys has black boxes only: behavioural, our own, for
// simulation. After Lattice FPGA-TN-02204 (memory) and FPGA-TN-02205 (sysDSP), as far as Yosys uses
// them; registers of the multiplier, which it does not use, stop the simulator's build.

module DP16KD #(
    parameter integer DATA_WIDTH_A = 18,
    parameter integer DATA_WIDTH_B = 18,
    parameter REGMODE_A = "NOREG",
    parameter REGMODE_B = "NOREG",
    parameter RESETMODE = "SYNC",
    parameter ASYNC_RESET_RELEASE = "SYNC",
    parameter CSDECODE_A = "0b000",
    parameter CSDECODE_B = "0b000",
    parameter CLKAMUX = "CLKA",
    parameter CLKBMUX = "CLKB",
    parameter WRITEMODE_A = "NORMAL",
    parameter WRITEMODE_B = "NORMAL",
    parameter GSR = "ENABLED",
    parameter [319:0] INITVAL_00 = 0, INITVAL_01 = 0, INITVAL_02 = 0, INITVAL_03 = 0,
        INITVAL_04 = 0, INITVAL_05 = 0, INITVAL_06 = 0, INITVAL_07 = 0, INITVAL_08 = 0,
        INITVAL_09 = 0, INITVAL_0A = 0, INITVAL_0B = 0, INITVAL_0C = 0, INITVAL_0D = 0,
        INITVAL_0E = 0, INITVAL_0F = 0, INITVAL_10 = 0, INITVAL_11 = 0, INITVAL_12 = 0,
        INITVAL_13 = 0, INITVAL_14 = 0, INITVAL_15 = 0, INITVAL_16 = 0, INITVAL_17 = 0,
        INITVAL_18 = 0, INITVAL_19 = 0, INITVAL_1A = 0, INITVAL_1B = 0, INITVAL_1C = 0,
        INITVAL_1D = 0, INITVAL_1E = 0, INITVAL_1F = 0, INITVAL_20 = 0, INITVAL_21 = 0,
        INITVAL_22 = 0, INITVAL_23 = 0, INITVAL_24 = 0, INITVAL_25 = 0, INITVAL_26 = 0,
        INITVAL_27 = 0, INITVAL_28 = 0, INITVAL_29 = 0, INITVAL_2A = 0, INITVAL_2B = 0,
        INITVAL_2C = 0, INITVAL_2D = 0, INITVAL_2E = 0, INITVAL_2F = 0, INITVAL_30 = 0,
        INITVAL_31 = 0, INITVAL_32 = 0, INITVAL_33 = 0, INITVAL_34 = 0, INITVAL_35 = 0,
        INITVAL_36 = 0, INITVAL_37 = 0, INITVAL_38 = 0, INITVAL_39 = 0, INITVAL_3A = 0,
        INITVAL_3B = 0, INITVAL_3C = 0, INITVAL_3D = 0, INITVAL_3E = 0, INITVAL_3F = 0
) (
    input
        DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5,
        DIA4, DIA3, DIA2, DIA1, DIA0, ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5,
        ADA4, ADA3, ADA2, ADA1, ADA0, CEA, OCEA, CLKA, WEA, RSTA, CSA2, CSA1, CSA0,
    input
        DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5,
        DIB4, DIB3, DIB2, DIB1, DIB0, ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5,
        ADB4, ADB3, ADB2, ADB1, ADB0, CEB, OCEB, CLKB, WEB, RSTB, CSB2, CSB1, CSB0,
    output
        DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5,
        DOA4, DOA3, DOA2, DOA1, DOA0,
    output
        DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5,
        DOB4, DOB3, DOB2, DOB1, DOB0
);
  // 16 words of 18 bits in each parameter, 20 bits apart.
  function [287:0] packed_words(input [319:0] words);
    integer n;
    for (n = 0; n < 16; n = n + 1) packed_words[18*n+:18] = words[20*n+:18];
  endfunction

  localparam [18431:0] INIT = {
      packed_words(INITVAL_3F), packed_words(INITVAL_3E), packed_words(INITVAL_3D),
      packed_words(INITVAL_3C), packed_words(INITVAL_3B), packed_words(INITVAL_3A),
      packed_words(INITVAL_39), packed_words(INITVAL_38), packed_words(INITVAL_37),
      packed_words(INITVAL_36), packed_words(INITVAL_35), packed_words(INITVAL_34),
      packed_words(INITVAL_33), packed_words(INITVAL_32), packed_words(INITVAL_31),
      packed_words(INITVAL_30), packed_words(INITVAL_2F), packed_words(INITVAL_2E),
      packed_words(INITVAL_2D), packed_words(INITVAL_2C), packed_words(INITVAL_2B),
      packed_words(INITVAL_2A), packed_words(INITVAL_29), packed_words(INITVAL_28),
      packed_words(INITVAL_27), packed_words(INITVAL_26), packed_words(INITVAL_25),
      packed_words(INITVAL_24), packed_words(INITVAL_23), packed_words(INITVAL_22),
      packed_words(INITVAL_21), packed_words(INITVAL_20), packed_words(INITVAL_1F),
      packed_words(INITVAL_1E), packed_words(INITVAL_1D), packed_words(INITVAL_1C),
      packed_words(INITVAL_1B), packed_words(INITVAL_1A), packed_words(INITVAL_19),
      packed_words(INITVAL_18), packed_words(INITVAL_17), packed_words(INITVAL_16),
      packed_words(INITVAL_15), packed_words(INITVAL_14), packed_words(INITVAL_13),
      packed_words(INITVAL_12), packed_words(INITVAL_11), packed_words(INITVAL_10),
      packed_words(INITVAL_0F), packed_words(INITVAL_0E), packed_words(INITVAL_0D),
      packed_words(INITVAL_0C), packed_words(INITVAL_0B), packed_words(INITVAL_0A),
      packed_words(INITVAL_09), packed_words(INITVAL_08), packed_words(INITVAL_07),
      packed_words(INITVAL_06), packed_words(INITVAL_05), packed_words(INITVAL_04),
      packed_words(INITVAL_03), packed_words(INITVAL_02), packed_words(INITVAL_01),
      packed_words(INITVAL_00)
  };

  function integer mode(input [8*15-1:0] name);
    mode = name == "WRITETHROUGH" ? 1 : name == "READBEFOREWRITE" ? 2 : 0;
  endfunction

  // A port is chosen where its three select pins are what CSDECODE says, as text.
  function chosen(input [39:0] text, input [2:0] pins);
    chosen = text[16] == pins[2] && text[8] == pins[1] && text[0] == pins[0];
  endfunction

  // 36 bits: the upper half is on port B's pins, whichever port is meant.
  localparam WIDE_WRITE = DATA_WIDTH_A == 36;
  localparam WIDE_READ = DATA_WIDTH_B == 36;
  wire [17:0] in_a = {
      DIA17, DIA16, DIA15, DIA14, DIA13, DIA12, DIA11, DIA10, DIA9, DIA8, DIA7, DIA6, DIA5,
      DIA4, DIA3, DIA2, DIA1, DIA0
  };
  wire [17:0] in_b = {
      DIB17, DIB16, DIB15, DIB14, DIB13, DIB12, DIB11, DIB10, DIB9, DIB8, DIB7, DIB6, DIB5,
      DIB4, DIB3, DIB2, DIB1, DIB0
  };
  wire [13:0] address_a = {
      ADA13, ADA12, ADA11, ADA10, ADA9, ADA8, ADA7, ADA6, ADA5, ADA4, ADA3, ADA2, ADA1, ADA0
  };
  wire [13:0] address_b = {
      ADB13, ADB12, ADB11, ADB10, ADB9, ADB8, ADB7, ADB6, ADB5, ADB4, ADB3, ADB2, ADB1, ADB0
  };
  wire [35:0] out_a, out_b;
  assign {
      DOA17, DOA16, DOA15, DOA14, DOA13, DOA12, DOA11, DOA10, DOA9, DOA8, DOA7, DOA6, DOA5,
      DOA4, DOA3, DOA2, DOA1, DOA0
  } = WIDE_READ ? out_b[17:0] : out_a[17:0];
  assign {
      DOB17, DOB16, DOB15, DOB14, DOB13, DOB12, DOB11, DOB10, DOB9, DOB8, DOB7, DOB6, DOB5,
      DOB4, DOB3, DOB2, DOB1, DOB0
  } = WIDE_READ ? out_b[35:18] : out_b[17:0];

  block_ram #(
      .UNIT(9),
      .WIDTH_A(DATA_WIDTH_A),
      .WIDTH_B(DATA_WIDTH_B),
      .MODE_A(mode(WRITEMODE_A)),
      .MODE_B(mode(WRITEMODE_B)),
      .REGISTER_A(REGMODE_A == "OUTREG"),
      .REGISTER_B(REGMODE_B == "OUTREG"),
      .ASYNCHRONOUS(RESETMODE == "ASYNC"),
      .RESET_BLOCKS(1),
      .INIT(INIT)
  ) ram (
      .clk({CLKB ^ (CLKBMUX == "INV"), CLKA ^ (CLKAMUX == "INV")}),
      .enable({
        CEB && chosen(CSDECODE_B, {CSB2, CSB1, CSB0}),
        CEA && chosen(CSDECODE_A, {CSA2, CSA1, CSA0})
      }),
      .write({WEB, WEA}),
      .reset({RSTB, RSTA}),
      .advance({OCEB, OCEA}),
      .address({address_b, address_a}),
      .in({18'b0, in_b, WIDE_WRITE ? in_b : 18'b0, in_a}),
      .out({out_b, out_a})
  );
endmodule

module MULT18X18D #(
    parameter REG_INPUTA_CLK = "NONE",
    parameter REG_INPUTB_CLK = "NONE",
    parameter REG_INPUTC_CLK = "NONE",
    parameter REG_PIPELINE_CLK = "NONE",
    parameter REG_OUTPUT_CLK = "NONE"
) (
    input
        A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6, A5, A4, A3, A2, A1, A0, B17,
        B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6, B5, B4, B3, B2, B1, B0, C17, C16,
        C15, C14, C13, C12, C11, C10, C9, C8, C7, C6, C5, C4, C3, C2, C1, C0, SIGNEDA, SIGNEDB,
        SOURCEA, SOURCEB,
    output
        P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24, P23, P22, P21, P20, P19,
        P18, P17, P16, P15, P14, P13, P12, P11, P10, P9, P8, P7, P6, P5, P4, P3, P2, P1, P0
);
  generate
    if (REG_INPUTA_CLK != "NONE" || REG_INPUTB_CLK != "NONE" || REG_INPUTC_CLK != "NONE"
        || REG_PIPELINE_CLK != "NONE" || REG_OUTPUT_CLK != "NONE")
      $error("MULT18X18D with registers is not modelled");
  endgenerate

  wire signed [18:0] a = {SIGNEDA && A17,
      A17, A16, A15, A14, A13, A12, A11, A10, A9, A8, A7, A6, A5, A4, A3, A2, A1, A0
  };
  wire signed [18:0] b = {SIGNEDB && B17,
      B17, B16, B15, B14, B13, B12, B11, B10, B9, B8, B7, B6, B5, B4, B3, B2, B1, B0
  };
  wire signed [37:0] product = a * b;
  assign {
      P35, P34, P33, P32, P31, P30, P29, P28, P27, P26, P25, P24, P23, P22, P21, P20, P19, P18,
      P17, P16, P15, P14, P13, P12, P11, P10, P9, P8, P7, P6, P5, P4, P3, P2, P1, P0
  } = product[35:0];
endmodule
