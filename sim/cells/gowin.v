// Gowin's block RAMs and multipliers, of which Yosys has black boxes only: behavioural, our own,
// for simulation. After Gowin UG285 (BSRAM and SSRAM) and UG287 (DSP), as far as Yosys uses them;
// registers of the multipliers, which it does not use, stop the simulator's build.

// Contents, as all block RAMs have them: 64 parameters of 32 units each.
`define INIT_PARAMETERS \
    INIT_RAM_00 = 0, INIT_RAM_01 = 0, INIT_RAM_02 = 0, INIT_RAM_03 = 0, \
    INIT_RAM_04 = 0, INIT_RAM_05 = 0, INIT_RAM_06 = 0, INIT_RAM_07 = 0, \
    INIT_RAM_08 = 0, INIT_RAM_09 = 0, INIT_RAM_0A = 0, INIT_RAM_0B = 0, \
    INIT_RAM_0C = 0, INIT_RAM_0D = 0, INIT_RAM_0E = 0, INIT_RAM_0F = 0, \
    INIT_RAM_10 = 0, INIT_RAM_11 = 0, INIT_RAM_12 = 0, INIT_RAM_13 = 0, \
    INIT_RAM_14 = 0, INIT_RAM_15 = 0, INIT_RAM_16 = 0, INIT_RAM_17 = 0, \
    INIT_RAM_18 = 0, INIT_RAM_19 = 0, INIT_RAM_1A = 0, INIT_RAM_1B = 0, \
    INIT_RAM_1C = 0, INIT_RAM_1D = 0, INIT_RAM_1E = 0, INIT_RAM_1F = 0, \
    INIT_RAM_20 = 0, INIT_RAM_21 = 0, INIT_RAM_22 = 0, INIT_RAM_23 = 0, \
    INIT_RAM_24 = 0, INIT_RAM_25 = 0, INIT_RAM_26 = 0, INIT_RAM_27 = 0, \
    INIT_RAM_28 = 0, INIT_RAM_29 = 0, INIT_RAM_2A = 0, INIT_RAM_2B = 0, \
    INIT_RAM_2C = 0, INIT_RAM_2D = 0, INIT_RAM_2E = 0, INIT_RAM_2F = 0, \
    INIT_RAM_30 = 0, INIT_RAM_31 = 0, INIT_RAM_32 = 0, INIT_RAM_33 = 0, \
    INIT_RAM_34 = 0, INIT_RAM_35 = 0, INIT_RAM_36 = 0, INIT_RAM_37 = 0, \
    INIT_RAM_38 = 0, INIT_RAM_39 = 0, INIT_RAM_3A = 0, INIT_RAM_3B = 0, \
    INIT_RAM_3C = 0, INIT_RAM_3D = 0, INIT_RAM_3E = 0, INIT_RAM_3F = 0
`define INIT_BITS { \
    INIT_RAM_3F, INIT_RAM_3E, INIT_RAM_3D, INIT_RAM_3C, INIT_RAM_3B, INIT_RAM_3A, \
    INIT_RAM_39, INIT_RAM_38, INIT_RAM_37, INIT_RAM_36, INIT_RAM_35, INIT_RAM_34, \
    INIT_RAM_33, INIT_RAM_32, INIT_RAM_31, INIT_RAM_30, INIT_RAM_2F, INIT_RAM_2E, \
    INIT_RAM_2D, INIT_RAM_2C, INIT_RAM_2B, INIT_RAM_2A, INIT_RAM_29, INIT_RAM_28, \
    INIT_RAM_27, INIT_RAM_26, INIT_RAM_25, INIT_RAM_24, INIT_RAM_23, INIT_RAM_22, \
    INIT_RAM_21, INIT_RAM_20, INIT_RAM_1F, INIT_RAM_1E, INIT_RAM_1D, INIT_RAM_1C, \
    INIT_RAM_1B, INIT_RAM_1A, INIT_RAM_19, INIT_RAM_18, INIT_RAM_17, INIT_RAM_16, \
    INIT_RAM_15, INIT_RAM_14, INIT_RAM_13, INIT_RAM_12, INIT_RAM_11, INIT_RAM_10, \
    INIT_RAM_0F, INIT_RAM_0E, INIT_RAM_0D, INIT_RAM_0C, INIT_RAM_0B, INIT_RAM_0A, \
    INIT_RAM_09, INIT_RAM_08, INIT_RAM_07, INIT_RAM_06, INIT_RAM_05, INIT_RAM_04, \
    INIT_RAM_03, INIT_RAM_02, INIT_RAM_01, INIT_RAM_00 \
    }

module SP #(
    parameter READ_MODE = 1'b0,
    parameter [1:0] WRITE_MODE = 2'b00,
    parameter integer BIT_WIDTH = 32,
    parameter [2:0] BLK_SEL = 3'b000,
    parameter RESET_MODE = "SYNC",
    parameter [255:0] `INIT_PARAMETERS
) (
    input CLK, CE, OCE, RESET, WRE,
    input [2:0] BLKSEL,
    input [13:0] AD,
    input [31:0] DI,
    output [31:0] DO
);
  localparam [16383:0] INIT = `INIT_BITS;
  wire [35:0] out, unused;

  block_ram #(
      .UNIT(8),
      .WIDTH_A(BIT_WIDTH),
      .WIDTH_B(1),
      .MODE_A(WRITE_MODE),
      .REGISTER_A(READ_MODE),
      .ASYNCHRONOUS(RESET_MODE == "ASYNC"),
      .INIT(INIT)
  ) ram (
      .clk({1'b0, CLK}),
      .enable({1'b0, CE && BLKSEL == BLK_SEL}),
      .write({1'b0, WRE}),
      .reset({1'b0, RESET}),
      .advance({1'b0, OCE}),
      .address({14'b0, AD}),
      .in({36'b0, 36'(DI)}),
      .out({unused, out})
  );
  assign DO = out[31:0];
endmodule

module SPX9 #(
    parameter READ_MODE = 1'b0,
    parameter [1:0] WRITE_MODE = 2'b00,
    parameter integer BIT_WIDTH = 36,
    parameter [2:0] BLK_SEL = 3'b000,
    parameter RESET_MODE = "SYNC",
    parameter [287:0] `INIT_PARAMETERS
) (
    input CLK, CE, OCE, RESET, WRE,
    input [2:0] BLKSEL,
    input [13:0] AD,
    input [35:0] DI,
    output [35:0] DO
);
  localparam [18431:0] INIT = `INIT_BITS;
  wire [35:0] out, unused;

  block_ram #(
      .UNIT(9),
      .WIDTH_A(BIT_WIDTH),
      .WIDTH_B(1),
      .MODE_A(WRITE_MODE),
      .REGISTER_A(READ_MODE),
      .ASYNCHRONOUS(RESET_MODE == "ASYNC"),
      .INIT(INIT)
  ) ram (
      .clk({1'b0, CLK}),
      .enable({1'b0, CE && BLKSEL == BLK_SEL}),
      .write({1'b0, WRE}),
      .reset({1'b0, RESET}),
      .advance({1'b0, OCE}),
      .address({14'b0, AD}),
      .in({36'b0, 36'(DI)}),
      .out({unused, out})
  );
  assign DO = out[35:0];
endmodule

module SDPB #(
    parameter READ_MODE = 1'b0,
    parameter integer BIT_WIDTH_0 = 32,
    parameter integer BIT_WIDTH_1 = 32,
    parameter [2:0] BLK_SEL_0 = 3'b000,
    parameter [2:0] BLK_SEL_1 = 3'b000,
    parameter RESET_MODE = "SYNC",
    parameter [255:0] `INIT_PARAMETERS
) (
    input CLKA, CEA, RESETA, CLKB, CEB, RESETB, OCE,
    input [2:0] BLKSELA, BLKSELB,
    input [13:0] ADA, ADB,
    input [31:0] DI,
    output [31:0] DO
);
  localparam [16383:0] INIT = `INIT_BITS;
  wire [35:0] out, unused;

  block_ram #(
      .UNIT(8),
      .WIDTH_A(BIT_WIDTH_0),
      .WIDTH_B(BIT_WIDTH_1),
      .REGISTER_B(READ_MODE),
      .ASYNCHRONOUS(RESET_MODE == "ASYNC"),
      .INIT(INIT)
  ) ram (
      .clk({CLKB, CLKA}),
      .enable({CEB && BLKSELB == BLK_SEL_1, CEA && BLKSELA == BLK_SEL_0}),
      .write(2'b01),
      .reset({RESETB, RESETA}),
      .advance({OCE, 1'b0}),
      .address({ADB, ADA}),
      .in({36'b0, 36'(DI)}),
      .out({out, unused})
  );
  assign DO = out[31:0];
endmodule

module SDPX9B #(
    parameter READ_MODE = 1'b0,
    parameter integer BIT_WIDTH_0 = 36,
    parameter integer BIT_WIDTH_1 = 36,
    parameter [2:0] BLK_SEL_0 = 3'b000,
    parameter [2:0] BLK_SEL_1 = 3'b000,
    parameter RESET_MODE = "SYNC",
    parameter [287:0] `INIT_PARAMETERS
) (
    input CLKA, CEA, RESETA, CLKB, CEB, RESETB, OCE,
    input [2:0] BLKSELA, BLKSELB,
    input [13:0] ADA, ADB,
    input [35:0] DI,
    output [35:0] DO
);
  localparam [18431:0] INIT = `INIT_BITS;
  wire [35:0] out, unused;

  block_ram #(
      .UNIT(9),
      .WIDTH_A(BIT_WIDTH_0),
      .WIDTH_B(BIT_WIDTH_1),
      .REGISTER_B(READ_MODE),
      .ASYNCHRONOUS(RESET_MODE == "ASYNC"),
      .INIT(INIT)
  ) ram (
      .clk({CLKB, CLKA}),
      .enable({CEB && BLKSELB == BLK_SEL_1, CEA && BLKSELA == BLK_SEL_0}),
      .write(2'b01),
      .reset({RESETB, RESETA}),
      .advance({OCE, 1'b0}),
      .address({ADB, ADA}),
      .in({36'b0, 36'(DI)}),
      .out({out, unused})
  );
  assign DO = out[35:0];
endmodule

module DPB #(
    parameter READ_MODE0 = 1'b0,
    parameter READ_MODE1 = 1'b0,
    parameter [1:0] WRITE_MODE0 = 2'b00,
    parameter [1:0] WRITE_MODE1 = 2'b00,
    parameter integer BIT_WIDTH_0 = 16,
    parameter integer BIT_WIDTH_1 = 16,
    parameter [2:0] BLK_SEL_0 = 3'b000,
    parameter [2:0] BLK_SEL_1 = 3'b000,
    parameter RESET_MODE = "SYNC",
    parameter [255:0] `INIT_PARAMETERS
) (
    input CLKA, CEA, OCEA, RESETA, WREA, CLKB, CEB, OCEB, RESETB, WREB,
    input [2:0] BLKSELA, BLKSELB,
    input [13:0] ADA, ADB,
    input [15:0] DIA, DIB,
    output [15:0] DOA, DOB
);
  localparam [16383:0] INIT = `INIT_BITS;
  wire [35:0] out_a, out_b;

  block_ram #(
      .UNIT(8),
      .WIDTH_A(BIT_WIDTH_0),
      .WIDTH_B(BIT_WIDTH_1),
      .MODE_A(WRITE_MODE0),
      .MODE_B(WRITE_MODE1),
      .REGISTER_A(READ_MODE0),
      .REGISTER_B(READ_MODE1),
      .ASYNCHRONOUS(RESET_MODE == "ASYNC"),
      .INIT(INIT)
  ) ram (
      .clk({CLKB, CLKA}),
      .enable({CEB && BLKSELB == BLK_SEL_1, CEA && BLKSELA == BLK_SEL_0}),
      .write({WREB, WREA}),
      .reset({RESETB, RESETA}),
      .advance({OCEB, OCEA}),
      .address({ADB, ADA}),
      .in({36'(DIB), 36'(DIA)}),
      .out({out_b, out_a})
  );
  assign DOA = out_a[15:0];
  assign DOB = out_b[15:0];
endmodule

module DPX9B #(
    parameter READ_MODE0 = 1'b0,
    parameter READ_MODE1 = 1'b0,
    parameter [1:0] WRITE_MODE0 = 2'b00,
    parameter [1:0] WRITE_MODE1 = 2'b00,
    parameter integer BIT_WIDTH_0 = 18,
    parameter integer BIT_WIDTH_1 = 18,
    parameter [2:0] BLK_SEL_0 = 3'b000,
    parameter [2:0] BLK_SEL_1 = 3'b000,
    parameter RESET_MODE = "SYNC",
    parameter [287:0] `INIT_PARAMETERS
) (
    input CLKA, CEA, OCEA, RESETA, WREA, CLKB, CEB, OCEB, RESETB, WREB,
    input [2:0] BLKSELA, BLKSELB,
    input [13:0] ADA, ADB,
    input [17:0] DIA, DIB,
    output [17:0] DOA, DOB
);
  localparam [18431:0] INIT = `INIT_BITS;
  wire [35:0] out_a, out_b;

  block_ram #(
      .UNIT(9),
      .WIDTH_A(BIT_WIDTH_0),
      .WIDTH_B(BIT_WIDTH_1),
      .MODE_A(WRITE_MODE0),
      .MODE_B(WRITE_MODE1),
      .REGISTER_A(READ_MODE0),
      .REGISTER_B(READ_MODE1),
      .ASYNCHRONOUS(RESET_MODE == "ASYNC"),
      .INIT(INIT)
  ) ram (
      .clk({CLKB, CLKA}),
      .enable({CEB && BLKSELB == BLK_SEL_1, CEA && BLKSELA == BLK_SEL_0}),
      .write({WREB, WREA}),
      .reset({RESETB, RESETA}),
      .advance({OCEB, OCEA}),
      .address({ADB, ADA}),
      .in({36'(DIB), 36'(DIA)}),
      .out({out_b, out_a})
  );
  assign DOA = out_a[17:0];
  assign DOB = out_b[17:0];
endmodule

module MULT9X9 #(
    parameter AREG = 1'b0,
    parameter BREG = 1'b0,
    parameter OUT_REG = 1'b0,
    parameter PIPE_REG = 1'b0,
    parameter ASIGN_REG = 1'b0,
    parameter BSIGN_REG = 1'b0,
    parameter SOA_REG = 1'b0
) (
    input CLK, CE, RESET, ASIGN, BSIGN, ASEL, BSEL,
    input [8:0] A, B, SIA, SIB,
    output [17:0] DOUT,
    output [8:0] SOA, SOB
);
  generate
    if (AREG || BREG || OUT_REG || PIPE_REG || ASIGN_REG || BSIGN_REG || SOA_REG)
      $error("MULT9X9 with registers is not modelled");
  endgenerate

  wire signed [9:0] a = {ASIGN && A[8], A};
  wire signed [9:0] b = {BSIGN && B[8], B};
  wire signed [19:0] product = a * b;
  assign DOUT = product[17:0];
endmodule

module MULT18X18 #(
    parameter AREG = 1'b0,
    parameter BREG = 1'b0,
    parameter OUT_REG = 1'b0,
    parameter PIPE_REG = 1'b0,
    parameter ASIGN_REG = 1'b0,
    parameter BSIGN_REG = 1'b0,
    parameter SOA_REG = 1'b0
) (
    input CLK, CE, RESET, ASIGN, BSIGN, ASEL, BSEL,
    input [17:0] A, B, SIA, SIB,
    output [35:0] DOUT,
    output [17:0] SOA, SOB
);
  generate
    if (AREG || BREG || OUT_REG || PIPE_REG || ASIGN_REG || BSIGN_REG || SOA_REG)
      $error("MULT18X18 with registers is not modelled");
  endgenerate

  wire signed [18:0] a = {ASIGN && A[17], A};
  wire signed [18:0] b = {BSIGN && B[17], B};
  wire signed [37:0] product = a * b;
  assign DOUT = product[35:0];
endmodule

module MULT36X36 #(
    parameter AREG = 1'b0,
    parameter BREG = 1'b0,
    parameter OUT0_REG = 1'b0,
    parameter OUT1_REG = 1'b0,
    parameter PIPE_REG = 1'b0,
    parameter ASIGN_REG = 1'b0,
    parameter BSIGN_REG = 1'b0
) (
    input CLK, CE, RESET, ASIGN, BSIGN,
    input [35:0] A, B,
    output [71:0] DOUT
);
  generate
    if (AREG || BREG || OUT0_REG || OUT1_REG || PIPE_REG || ASIGN_REG || BSIGN_REG)
      $error("MULT36X36 with registers is not modelled");
  endgenerate

  wire signed [36:0] a = {ASIGN && A[35], A};
  wire signed [36:0] b = {BSIGN && B[35], B};
  wire signed [73:0] product = a * b;
  assign DOUT = product[71:0];
endmodule
